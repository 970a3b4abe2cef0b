#!/bin/bash
# A private SLURM on this machine: one node, two fake GPUs, a partition `normal` and one, `urgent`, that preempts it.
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
    for _ in $(seq 60); do
        sinfo -h -p normal -o %T 2>/dev/null | grep -q idle && exit 0
        sleep 1
    done
    echo "cluster.sh: the node did not come up; see $STATE/*.log" >&2
    exit 1
}

configure() {
    cat >/etc/slurm/slurm.conf <<EOF
ClusterName=private
SlurmctldHost=$(hostname -s)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$STATE/state
SlurmdSpoolDir=$STATE/spool
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd.pid
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd.log
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
PartitionName=normal Nodes=ALL Default=YES PriorityTier=1 MaxTime=60 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=60 State=UP
EOF
    cat >/etc/slurm/gres.conf <<EOF
AutoDetect=off
Name=gpu Type=fake File=$STATE/fakegpu[0-1]
EOF
}

stop() {
    for daemon in slurmd slurmctld; do
        [ ! -e $STATE/$daemon.pid ] || kill "$(cat $STATE/$daemon.pid)" || true
    done
    for _ in $(seq 20); do # they write to the folder until they have ended
        pgrep -x slurmd >/dev/null || pgrep -x slurmctld >/dev/null || pgrep -x slurmstepd >/dev/null || break
        sleep 1
    done
    rm -rf $STATE /etc/slurm/slurm.conf /etc/slurm/gres.conf
}

$ACTION
