"""BLEU, words changed and perplexity against sacrebleu and plain counting; what is told."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import sacrebleu
import torch

from robustplug.api import View
from robustplug_seq2sick.measures import PARTS, measure, perplexity, pool
from robustplug_seq2sick.tell import side_by_side, tell
from robustplug_seq2sick.text.language import DISCOUNT, Trigrams
from robustplug_seq2sick.text.search import Translation
from robustplug_seq2sick.text.words import BEGIN, END, UNKNOWN, word_vocabulary

TEXT = ["a dog runs in the park .", "the cat sleeps on a red mat .", "a dog sleeps .", "the cat runs ."]
WORDS = word_vocabulary([line.split() for line in TEXT], 0)


def rows(lines: list[str]) -> torch.Tensor:
    numbers = [WORDS.encode(line) for line in lines]
    return torch.tensor([row + [0] * (9 - len(row)) for row in numbers])


def view(after: list[str], **info: torch.Tensor) -> View:
    x = rows(TEXT)
    return View(rows(after), rows(TEXT), "adv", x, torch.arange(4), info=info)


SAID = {"said": rows(TEXT), "keywords": torch.zeros(4, 0, dtype=torch.int64)}
AFTER = ["a cat runs in the park .", "the cat sleeps on a red dog .", "a dog sleeps .", "park cat mat ."]
# Only the second and the last have no word in its place.
OUTPUT = ["a dog runs .", "cat the red mat sleeps the cat mat", "a dog sleeps .", "cat the mat a"]


def test_bleu_and_words_changed_of_successful_attacks_are_those_of_sacrebleu() -> None:
    found = measure(view(AFTER, **SAID), Translation(rows(OUTPUT)), WORDS, WORDS, Trigrams(rows(TEXT), 20))
    assert found["_success"].tolist() == [0, 1, 0, 1]
    for row in (1, 3):
        expected = sacrebleu.sentence_bleu(AFTER[row], [TEXT[row]], tokenize="none").score / 100
        assert float(found["input BLEU"][row]) == pytest.approx(expected)
        pairs = zip(AFTER[row].split(), TEXT[row].split(), strict=True)
        assert float(found["words changed"][row]) == sum(a != b for a, b in pairs)
    assert found["input BLEU"].isnan().tolist() == [True, False, True, False]
    measures = pool({name: values.double() for name, values in found.items()})
    assert measures["success %"].mean == 50
    assert measures["success %"].low == pytest.approx(15.0, abs=0.1)
    assert measures["perplexity"].count == 2


def test_pooled_bleu_is_that_of_the_corpus() -> None:
    found = measure(view(TEXT), Translation(rows(OUTPUT)), WORDS, WORDS, Trigrams(rows(TEXT), 20))
    assert set(found) == set(PARTS)
    pooled = pool({name: values.double() for name, values in found.items()})["BLEU"]
    expected = sacrebleu.corpus_bleu(OUTPUT, [TEXT], tokenize="none").score
    assert pooled.mean == pytest.approx(expected, abs=1e-6)
    alike = pool({name: values.double() for name, values in found.items()})["chrF"]
    assert alike.mean == pytest.approx(sacrebleu.corpus_chrf(OUTPUT, [TEXT]).score, abs=1e-6)
    assert alike.low < alike.mean < alike.high
    assert pooled.low < pooled.mean < pooled.high
    found["_length"][0] = torch.nan
    assert pool({name: values.double() for name, values in found.items()})["BLEU"].count == 3


def test_trigrams_are_a_distribution_and_prefer_what_they_have_seen() -> None:
    model = Trigrams(rows(TEXT), len(WORDS))
    usable = [number for number in range(len(WORDS)) if number not in (0, BEGIN)]
    a, dog, red = (WORDS.encode(word)[0] for word in ("a", "dog", "red"))
    for context in ((BEGIN, BEGIN), (BEGIN, a), (a, dog), (red, red), (UNKNOWN, a)):
        assert sum(model.probability(*context, word) for word in usable) == pytest.approx(1)
    assert model.probability(BEGIN, a, dog) > model.probability(BEGIN, a, red)


def test_trigrams_are_interpolated_kneser_ney() -> None:
    model = Trigrams(rows(TEXT), len(WORDS))
    framed = [[BEGIN, BEGIN, *WORDS.encode(line), END] for line in TEXT]
    three = Counter(g for row in framed for g in zip(row, row[1:], row[2:], strict=False))
    two = Counter((b, c) for _, b, c in set(three))
    one = Counter(c for _, c in set(two))

    def level(counts: Any, gram: tuple[int, ...], lower: float) -> float:
        total = sum(n for other, n in counts.items() if other[:-1] == gram[:-1])
        kinds = sum(1 for other in counts if other[:-1] == gram[:-1])
        if not total:
            return lower
        return float((max(counts[gram] - DISCOUNT, 0) + DISCOUNT * kinds * lower) / total)

    a, dog, sleeps = (WORDS.encode(word)[0] for word in ("a", "dog", "sleeps"))
    lowest = level(Counter({(c,): n for c, n in one.items()}), (sleeps,), 1 / (len(WORDS) - 2))
    middle = level(two, (dog, sleeps), lowest)
    assert model.probability(a, dog, sleeps) == pytest.approx(level(three, (a, dog, sleeps), middle))
    surprise, words = model.surprise(rows(["a dog sleeps ."]))
    assert words.tolist() == [5]
    grams = list(zip(framed[2], framed[2][1:], framed[2][2:], strict=False))
    assert float(surprise) == pytest.approx(-sum(math.log(model.probability(*gram)) for gram in grams))


def test_perplexity_is_of_all_words_together() -> None:
    found = perplexity(torch.tensor([4.0, 9.0, torch.nan]), torch.tensor([2.0, 3.0, 5.0]))
    assert found.mean == pytest.approx(math.exp(13 / 5))
    assert found.low < found.mean < found.high


def test_changed_words_are_marked_one_above_the_other() -> None:
    first, second = side_by_side("a dog runs", "a mountain runs")
    assert first == "  input            a dog        runs"
    assert second == "  attacked input   a «mountain» runs"
    long = "word " * 60
    assert max(map(len, side_by_side(long, long))) < 80


def test_an_attack_is_told_with_goal_and_price() -> None:
    texts = tell(view(AFTER, **SAID), Translation(rows(OUTPUT)), WORDS, WORDS)
    assert "no word in its original place: not reached" in texts[0]
    assert "no word in its original place: reached" in texts[1]
    assert "1 of 8 words changed, BLEU 0.707" in texts[1]
    wanted = {**SAID, "keywords": torch.tensor([WORDS.encode("red park")] * 4)}
    assert "keywords “red”, “park”" in tell(view(AFTER, **wanted), Translation(rows(OUTPUT)), WORDS, WORDS)[0]
    plain = tell(view(TEXT), Translation(rows(OUTPUT)), WORDS, WORDS)[0]
    assert plain.splitlines()[-1] == "  reference        a dog runs in the park ."
    endless = Translation(torch.full((4, 40), WORDS.encode("park")[0]))
    wide = tell(view(AFTER, **SAID), endless, WORDS, WORDS)
    assert max(len(line) for text in wide for line in text.splitlines()) < 80
    few = {**SAID, "keywords": torch.tensor([[WORDS.encode("red")[0], 0]] * 4)}
    lacking = tell(view(AFTER, **few), Translation(rows(OUTPUT)), WORDS, WORDS)[0]
    assert "fewer than 2 keywords are missing from the translation" in " ".join(lacking.split())
    nothing = {**SAID, "said": torch.zeros(4, 9, dtype=torch.int64)}
    assert "nothing to attack" in tell(view(AFTER, **nothing), Translation(rows(OUTPUT)), WORDS, WORDS)[0]
