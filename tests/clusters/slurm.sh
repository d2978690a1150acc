#!/usr/bin/env bash
# Starts a real Slurm of two nodes on this one machine: slurm.sh start FOLDER, and slurm.sh stop FOLDER.
# Needs root and Debian's packages slurmctld, slurmd, slurm-client and munge. Its programs find it by
# SLURM_CONF=FOLDER/slurm.conf; nothing is written elsewhere, but for the key of munge, where there is none.
set -euo pipefail
folder=$2
stop() {
  for file in "$folder"/{ctld,n1,n2}.pid; do
    [ -f "$file" ] && kill "$(cat "$file")" 2>/dev/null || true
    rm -f "$file"
  done
}
case $1 in
start)
  host=$(hostname -s)
  mkdir -p "$folder"/{state,spool-n1,spool-n2,log} /run/munge
  cat >"$folder/slurm.conf" <<CONF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=17000
AuthType=auth/munge
AuthInfo=cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldLogFile=$folder/log/ctld.log
SlurmdLogFile=$folder/log/%n.log
SlurmctldPidFile=$folder/ctld.pid
SlurmdPidFile=$folder/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=15
KillWait=20
SchedulerParameters=sched_interval=2,bf_interval=2,requeue_delay=1,batch_sched_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=17001 CPUs=1 RealMemory=1000 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=17002 CPUs=1 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=10
CONF
  [ -f /etc/munge/munge.key ] || head -c 1024 /dev/urandom >/etc/munge/munge.key
  chown munge /etc/munge/munge.key /run/munge
  chmod 400 /etc/munge/munge.key
  pgrep -x munged >/dev/null || su -s /bin/sh munge -c /usr/sbin/munged
  export SLURM_CONF=$folder/slurm.conf
  slurmctld -f "$SLURM_CONF"
  for node in n1 n2; do slurmd -f "$SLURM_CONF" -N "$node"; done
  for _ in $(seq 60); do
    [ "$(sinfo --noheader --format=%T | sort -u)" = idle ] && exit 0
    sleep 1
  done
  sinfo >&2
  exit 1
  ;;
stop) stop ;;
esac
