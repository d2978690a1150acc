"""Classifiers with scikit-learn's interface decide as their own predict does."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import robustplug
from robustplug.api import Refused
from robustplug.errors import RunError
from robustplug.subjects.loading import load_target

from .models import INFO, attacked, images
from .tables import flat, rows


def sk(name: str, **options: Any) -> Any:
    """Return a class of scikit-learn, called: "svm.SVC"."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(f"sklearn.{module}"), attribute)(**options)


def logistic() -> Any:
    return sk("linear_model.LogisticRegression", max_iter=500)


def of(classifier: Any, *classes: int) -> Any:
    """Fit a classifier on 400 rows, of some classes only."""
    x, y = rows()
    kept = np.isin(y, classes) if classes else np.ones(len(y), dtype=bool)
    return classifier.fit(x[kept][:400], y[kept][:400])


def boosted(package: str, name: str) -> Any:
    library = pytest.importorskip(package)
    quiet = {"verbose": -1} if package == "lightgbm" else {}
    return getattr(library, name)(n_estimators=2, max_depth=3, n_jobs=1, **quiet)


FITTED: dict[str, Callable[[], Any]] = {
    "decision function": lambda: of(logistic()),
    "probabilities": lambda: of(sk("ensemble.RandomForestClassifier", n_estimators=5, random_state=0)),
    "trees whose probabilities are 0 or 1": lambda: of(sk("tree.DecisionTreeClassifier", random_state=0)),
    "predict": lambda: of(_voting()),
    "one against one": lambda: of(sk("svm.SVC", decision_function_shape="ovo")),
    "one against one, of three": lambda: of(sk("svm.SVC", decision_function_shape="ovo"), 2, 5, 9),
    "pipeline": lambda: of(_pipeline(sk("preprocessing.StandardScaler"), logistic())),
    "grid search": lambda: of(
        sk("model_selection.GridSearchCV", estimator=logistic(), param_grid={"C": [0.1, 1.0]}, cv=2)
    ),
    "missing classes": lambda: of(logistic(), 1, 4, 9),
    "missing classes, probabilities": lambda: of(sk("naive_bayes.GaussianNB"), 0, 7, 8),
    "two classes": lambda: of(logistic(), 3, 8),
    "lightgbm": lambda: of(boosted("lightgbm", "LGBMClassifier")),
    "xgboost": lambda: of(boosted("xgboost", "XGBClassifier")),
}


def _pipeline(*steps: Any) -> Any:
    make: Any = importlib.import_module("sklearn.pipeline").make_pipeline
    return make(*steps)


def _voting() -> Any:
    trees = [
        (str(seed), sk("tree.DecisionTreeClassifier", max_depth=5, random_state=seed)) for seed in range(3)
    ]
    return sk("ensemble.VotingClassifier", estimators=trees)


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.filterwarnings("error::UserWarning")
def test_classifiers_decide_as_their_predict_does(kind: str) -> None:
    fitted = FITTED[kind]()
    state = str(np.random.get_state())
    target = load_target(fitted, INFO)
    assert str(np.random.get_state()) == state
    assert (target.kind, target.gradients) == ("classifier", False)
    assert json.loads(json.dumps(target.description)) == target.description
    for size in (1, 200):
        logits = target.module(images(size))
        assert logits.shape == (size, 10)
        assert logits.isfinite().all()
        assert logits.argmax(1).tolist() == fitted.predict(flat(images(size))).tolist()
    with pytest.raises(Refused, match="black-box"):
        attacked(target.module, "fgsm")


def test_scores_are_those_of_the_classifier() -> None:
    fitted = of(logistic())
    expected = torch.as_tensor(fitted.decision_function(flat(images(7)))).float()
    torch.testing.assert_close(load_target(fitted, INFO).module(images(7)), expected)
    forest = FITTED["probabilities"]()
    shares = torch.as_tensor(forest.predict_proba(flat(images(7)))).float()
    ours = load_target(forest, INFO).module(images(7)).softmax(1)
    torch.testing.assert_close(ours, shares, atol=1e-5, rtol=1e-5)


def test_classes_that_were_never_seen_come_last() -> None:
    logits = load_target(FITTED["missing classes"](), INFO).module(images(50))
    known = [1, 4, 9]
    others = [number for number in range(10) if number not in known]
    assert (logits[:, others].amax(1) < logits[:, known].amin(1)).all()


@pytest.mark.parametrize(
    ("kind", "notes"),
    [
        ("decision function", []),
        ("predict", ["only decisions"]),
        ("one against one", ["decision_function disagrees", "only decisions"]),
        ("one against one, of three", ["decision_function disagrees", "only decisions"]),
    ],
)
def test_notes_say_what_was_used(kind: str, notes: list[str]) -> None:
    found = load_target(FITTED[kind](), INFO).description["notes"]
    assert len(found) == len(notes)
    assert all(expected in note for expected, note in zip(notes, found, strict=True))


def few(**changes: Any) -> Any:
    """Return a logistic regression of 30 features, or of other labels."""
    x, y = rows()
    features, labels = changes.get("features", 64), changes.get("labels", y)
    return logistic().fit(x[:200, :features], labels[:200])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: few(features=30), r"takes 30 features, but images of shape \(1, 8, 8\) have 64"),
        (lambda: few(labels=rows()[1] + 1), "has class 10, but the classes of the task are 0 to 9"),
        (lambda: few(labels=rows()[1].astype(str)), "fit it on labels 0 to 9"),
        (lambda: few(labels=rows()[1] + 0.0 + 100), "has class 100,"),
        (logistic, "not LogisticRegression; a classifier must be fitted"),
        (lambda: of(sk("linear_model.LinearRegression")), "a classifier must be fitted and have classes_"),
        (lambda: of(sk("cluster.KMeans", n_clusters=3, n_init=1)), "have classes_"),
    ],
)
def test_what_is_no_classifier_of_the_task(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        load_target(make(), INFO)


def test_a_component_belongs_to_a_state_dict() -> None:
    with pytest.raises(RunError, match="leave out --model"):
        load_target(of(logistic()), INFO, model=robustplug.plugin.component.Use("small-cnn"))


def test_a_classifier_that_fails_is_told() -> None:
    class Broken:
        classes_ = np.arange(10)

        def predict(self, rows: Any) -> Any:
            raise KeyError("no such column")

    with pytest.raises(RunError, match="Broken cannot take images .* KeyError: 'no such column'"):
        load_target(Broken(), INFO)


def test_a_whole_evaluation(tmp_path: Path) -> None:
    fitted = of(logistic())
    result = robustplug.evaluate(
        fitted,
        task="digits",
        vicinity={"use": "l2", "eps": 1.0},
        attacks=[{"use": "sign-opt", "queries": 400, "starts": 20, "directions": 20}],
        samples=20,
        out=tmp_path,
    )
    clean, attacked_ = result.attacks
    assert attacked_.accuracy < clean.accuracy - 0.2
    # It has no weights by which notes of an unfinished evaluation could be told from another's.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "robustplug.evaluation.kept.journal.Journal.open", lambda *_: pytest.fail("it took notes")
        )
        robustplug.evaluate(fitted, task="digits", attacks=[], samples=2, out=tmp_path)
