#!/bin/bash
# A private SLURM on this machine: a node with two fake GPUs, a partition `normal` and one, `urgent`, that preempts it.
# The partition `pair` has a second node as well, which is another slurmd on the same machine.
# For machines that can be thrown away, as root on Debian or Ubuntu: it installs packages and writes /etc/slurm.
set -euo pipefail
ACTION=${1:?usage: cluster.sh start|stop}
STATE=/run/ssrob-slurm

start() {
    if [ -e /etc/slurm/slurm.conf ] && [ ! -e $STATE ]; then
        echo "cluster.sh: /etc/slurm/slurm.conf is there already; this is no machine to test on" >&2
        exit 1
    fi
    command -v slurmctld munged >/dev/null || {
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends slurm-wlm munge
    }
    mkdir -p $STATE/spool $STATE/state /etc/slurm /run/munge /var/lib/munge /var/log/munge
    for gpu in 0 1; do ln -sf /dev/null $STATE/fakegpu$gpu; done # links: a plain file gives no CUDA_VISIBLE_DEVICES
    configure
    [ -e /etc/munge/munge.key ] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none
    chown -R munge: /etc/munge /run/munge /var/lib/munge /var/log/munge
    chmod 400 /etc/munge/munge.key
    pgrep -x munged >/dev/null || setpriv --reuid=munge --regid=munge --clear-groups munged
    slurmctld -c
    slurmd -N "$(hostname -s)"
    slurmd -N second
    for _ in $(seq 60); do
        [ "$(sinfo -h -p pair -t idle -o %D 2>/dev/null)" = 2 ] && exit 0
        sleep 1
    done
    echo "cluster.sh: the nodes did not come up; see $STATE/*.log" >&2
    exit 1
}

configure() {
    cat >/etc/slurm/slurm.conf <<EOF
ClusterName=private
SlurmctldHost=$(hostname -s)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$STATE/state
SlurmdSpoolDir=$STATE/spool/%n
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd-%n.pid
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd-%n.log
# A container has neither systemd nor cgroups.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
DefMemPerCPU=500
MinJobAge=600
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=$(hostname -s) CPUs=4 RealMemory=16000 Gres=gpu:fake:2 State=UNKNOWN
NodeName=second NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=6828 CPUs=4 RealMemory=16000 Gres=gpu:fake:2 State=UNKNOWN
PartitionName=normal Nodes=$(hostname -s) Default=YES PriorityTier=1 MaxTime=60 State=UP
PartitionName=urgent Nodes=$(hostname -s) PriorityTier=10 MaxTime=60 State=UP
PartitionName=pair Nodes=ALL MaxTime=60 State=UP
EOF
    cat >/etc/slurm/gres.conf <<EOF
AutoDetect=off
Name=gpu Type=fake File=$STATE/fakegpu[0-1]
EOF
}

stop() {
    for file in $STATE/*.pid; do
        [ ! -e "$file" ] || kill "$(cat "$file")" || true
    done
    for _ in $(seq 20); do # they write to the folder until they have ended
        pgrep -x slurmd >/dev/null || pgrep -x slurmctld >/dev/null || pgrep -x slurmstepd >/dev/null || break
        sleep 1
    done
    rm -rf $STATE /etc/slurm/slurm.conf /etc/slurm/gres.conf
}

$ACTION
