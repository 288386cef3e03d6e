# Says what a container's process finds around itself, a line each: section, key, value, with tabs between.
# It also tries what a container must not be allowed, so it runs nowhere else: PROBE names the file that it writes.
[ -n "$PROBE" ] && [ $$ -lt 1000 ] || exit 1
exec 9> "$PROBE"
say() { printf '%s\t%s\t%s\n' "$1" "$2" "$3" >&9; }

# Identity, privileges, signals.
while read -r key value; do
    case $key in
    Uid: | Gid: | Groups: | Umask: | Cap* | NoNewPrivs: | Seccomp: | SigBlk: | SigIgn:)
        set -- $value
        say process "${key%:}" "$*"
        ;;
    esac
done < /proc/$$/status
say process oom_score_adj "$(cat /proc/$$/oom_score_adj)"
say process cwd "$(readlink /proc/$$/cwd)"
say process nice "$(cut -d' ' -f19 /proc/$$/stat)"
set -- $(cut -d' ' -f5-7 /proc/$$/stat)
[ "$1" = $$ ] && [ "$2" = $$ ] && say process session own || say process session joined
say process terminal "$3"
for fd in 0 1 2 3 4 5 6 7 8; do
    [ -e /proc/$$/fd/$fd ] && say process fd$fd "$(readlink /proc/$$/fd/$fd | sed 's/\[.*//')"
done
say process threads_of_others "$(ls -d /proc/[0-9]* | grep -v -e "/$$\$" -e '/1$' | wc -l | sed 's/[1-9].*/some/')"
for ns in cgroup ipc mnt net pid user uts; do say namespace $ns "$(readlink /proc/$$/ns/$ns)"; done
sed -n 's/   */\t/g; 2,$p' /proc/$$/limits | while IFS="$(printf '\t')" read -r name soft hard unit; do
    say limit "$name" "$soft $hard"
done
env | while IFS='=' read -r name value; do
    case $name in SHLVL | _ | OLDPWD | PWD) ;; *) say env "$name" "$value" ;; esac
done

# Mounts: type, what of it, options, propagation, the file system's own options.
awk '{
    for (i = 7; $i != "-"; i++) propagation[NR] = propagation[NR] " " $i
    sub(/:[0-9]+/, "", propagation[NR])
    printf "mount\t%s\t%s %s %s%s; %s; %s\n", $5, $(i + 1), $4, $6, propagation[NR], $(i + 2), $(i + 3)
}' /proc/self/mountinfo >&9

# Devices, and the modes of what is there.
find /dev -mindepth 1 | while read -r path; do
    if [ -L "$path" ]; then say dev "$path" "link to $(readlink "$path")"
    else say dev "$path" "$(stat -c '%F %t,%T %a %u:%g' "$path")"; fi
done
for path in / /dev /dev/shm /proc /sys /etc/hosts /etc/hostname /etc/resolv.conf; do
    say mode "$path" "$(stat -c '%F %a %u:%g' "$path")"
done

# What can be read, and what can be opened for writing.
for path in /proc/acpi /proc/asound /proc/bus /proc/fs /proc/interrupts /proc/irq /proc/kcore /proc/keys \
    /proc/kmsg /proc/latency_stats /proc/sched_debug /proc/scsi /proc/sys/kernel/hostname /proc/sys/net/core/somaxconn \
    /proc/sysrq-trigger /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware /sys/kernel \
    /sys/devices/system/cpu/cpu0/thermal_throttle /sys/fs/cgroup /sys/fs/cgroup/memory /sys/kernel/uevent_seqnum \
    /dev /dev/shm /etc /etc/hosts /etc/resolv.conf; do
    if [ -d "$path" ]; then
        [ -n "$(ls -A "$path" 2>&1)" ] && inside=full || inside=empty
        (: > "$path/probe") 2> /dev/null && rm "$path/probe" && write=writable || write=read-only
    elif [ -e "$path" ]; then
        [ -n "$(head -c 16 "$path" 2> /dev/null | tr -d '\0')" ] && inside=data || inside=nothing
        # Read from, /proc/kmsg waits.
        (: >> "$path") 2> /dev/null && write=writable || write=read-only
    else
        inside=absent write=
    fi
    say path "$path" "$inside $write"
done

# Kernel settings of the container's own namespaces.
{
    ls -d /proc/sys/kernel/shm* /proc/sys/kernel/msg* /proc/sys/kernel/sem /proc/sys/kernel/auto_msgmni /proc/sys/fs/mqueue/*
    find /proc/sys/net -type f | grep -v -e '/conf/[^adel]' -e '/neigh/[^adel]' -e _count$ -e _current$
} 2> /dev/null | xargs grep -Hs '' | while IFS=: read -r file value; do
    set -- $value
    say sysctl "${file#/proc/sys/}" "$*"
done

# Limits as the container sees them, v1 and v2.
for file in memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes memory/memory.memsw.limit_in_bytes \
    memory/memory.swappiness cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu/cpu.shares pids/pids.max cpuset/cpuset.cpus \
    cpuset/cpuset.mems blkio/blkio.weight memory.max memory.low memory.swap.max memory.oom.group cpu.max cpu.weight \
    pids.max; do
    [ -e /sys/fs/cgroup/$file ] && say cgroup $file "$(cat /sys/fs/cgroup/$file)"
done
[ -e /sys/fs/cgroup/memory/memory.oom_control ] &&
    say cgroup memory/oom_kill_disable "$(sed -n 's/oom_kill_disable //p' /sys/fs/cgroup/memory/memory.oom_control)"
[ -e /sys/fs/cgroup/devices/devices.list ] &&
    sort /sys/fs/cgroup/devices/devices.list | while read -r kind numbers access; do
        say cgroup "devices $kind $numbers" "$access"
    done
cut -d: -f2 /proc/self/cgroup | sort | while read -r name; do say cgroup "member of ${name:-v2}" yes; done

# Names and network.
case $(hostname) in *[!0-9a-f]*) say name hostname "$(hostname)" ;; *) say name hostname "$(hostname | wc -c) hex" ;; esac
say name domainname "$(cat /proc/sys/kernel/domainname)"
[ "$(hostname)" = "$HOSTNAME" ] && say name HOSTNAME same || say name HOSTNAME differs
[ "$(hostname)" = "$(cat /etc/hostname)" ] && say name /etc/hostname same || say name /etc/hostname differs
grep -v -e '^#' -e '^$' /etc/hosts | while read -r address names; do
    set -- $names
    case " $names " in *" $(hostname) "*) say hosts own "${address%%[0-9]*}address, own name and $(($# - 1)) more" ;; *) say hosts "$address" "$*" ;; esac
done
grep -v -e '^#' -e '^$' /etc/resolv.conf | while read -r key value; do say resolv "$key" "$value"; done
say net links "$(ls /sys/class/net | sort | tr '\n' ' ')"
say net eth0-mtu "$(cat /sys/class/net/eth0/mtu)"
say net default-route "$(ip route | grep -c '^default via')"

# What the kernel lets it do.
dir=$(mktemp -d)
try() {
    name=$1
    shift
    if "$@" > /dev/null 2>&1 < /dev/null; then say try "$name" ok; else say try "$name" refused; fi
}
try mount mount -t tmpfs none $dir
try remount-sys mount -o remount,rw /sys
try umount-proc umount /proc/sys
try unshare-user unshare -U true
try unshare-mount unshare -m true
try chroot chroot / true
try set-hostname hostname probe
try kernel-log dmesg
try raise-priority nice -n -5 sh -c '[ $(nice) -lt 0 ]'
try make-char-device mknod $dir/null c 1 3
try use-char-device sh -c "echo x > $dir/null"
try make-disk mknod $dir/disk b 254 0
try use-disk head -c 1 $dir/disk
try make-fuse mknod $dir/fuse c 10 229
try use-fuse sh -c ": < $dir/fuse"
try chown chown 12:34 $dir
try other-user setuidgid nobody true
try ping ping -c 1 -w 5 127.0.0.1
# Listening ends with the time and not with a refusal.
try low-port sh -c 'timeout 1 nc -l -p 80; [ $? -ge 124 ]'
try low-port-of-another-user setuidgid nobody sh -c 'timeout 1 nc -l -p 81; [ $? -ge 124 ]'
try read-host-memory head -c 1 /dev/mem
try write-sysctl sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
try sysrq sh -c ': >> /proc/sysrq-trigger'
rm -rf "$dir"
say end end end
