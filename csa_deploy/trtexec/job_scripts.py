"""The shell scripts of a job on a target: POSIX sh, with the job's directory as their first argument."""

from __future__ import annotations

STATUS, LOG, PID, SCRIPT, WAITS = "job.status", "job.log", "job.pid", "job.sh", "job.waits"
# A process is its number and, where /proc tells it, when it started: numbers are given anew, after a restart at the
# latest. A file that holds one is read as alive while it is being written.
ALIVE = r"""started() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
alive() {
  read -r pid start 2>/dev/null < "$1" || return 0
  kill -0 "$pid" 2>/dev/null && [ "$(started "$pid")" = "$start" ]
}
"""
# Prints "status N", "waiting", "running" or "gone", after waiting up to $2 rounds for the end, and a few only for a job
# that waits itself. A finished process and its status file are two events: look at the file once more.
STATE = f"""{ALIVE}cd "$1" 2>/dev/null || {{ echo gone; exit 0; }}
runs() {{ [ -f {PID} ] && alive {PID}; }}
i=0
while [ ! -f {STATUS} ] && runs && [ $i -lt "$2" ] && {{ [ ! -f {WAITS} ] || [ $i -lt 2 ]; }}; do
  sleep 0.2 2>/dev/null || sleep 1; i=$((i + 1))
done
if [ -f {STATUS} ]; then :; elif runs; then
  if [ -f {WAITS} ]; then echo waiting; else echo running; fi; exit 0
fi
if [ -f {STATUS} ]; then echo "status $(cat {STATUS})"; else echo gone; fi"""
# nohup and </dev/null let ssh end while the job goes on; setsid, where there is one, shields it from the session's end.
# The script comes in on standard input. A second start finds the first one's process and leaves it.
START = f"""{ALIVE}cd "$1" && cat > {SCRIPT} || exit 3
[ -f {PID} ] && alive {PID} && exit 0
[ -f {STATUS} ] && exit 0
rm -f {PID}
S=; command -v setsid >/dev/null 2>&1 && S=setsid
nohup $S sh ./{SCRIPT} </dev/null >/dev/null 2>&1 &
i=0
while [ ! -f {PID} ] && [ $i -lt 50 ]; do sleep 0.1 2>/dev/null || sleep 1; i=$((i + 1)); done
[ -f {PID} ]"""
STOP = f"""{ALIVE}cd "$1" 2>/dev/null && [ -f {PID} ] && alive {PID} || exit 0
kill "-$pid" 2>/dev/null || kill "$pid" 2>/dev/null; exit 0"""
# Waits for the workdir's lock: a hard link, since that is there with its content or not at all; a file of its own where
# there are no links. Two that take over a dead one's at the same time: the second finds a living one's in its
# hands and puts it back.
LOCK = f"""take() {{
  ln {PID} ../lock 2>/dev/null || {{ [ ! -e ../lock ] && (set -C; cat {PID} > ../lock) 2>/dev/null; }}
}}
until take; do
  [ -d .. ] && [ -f {PID} ] || exit 1
  : > {WAITS}
  alive ../lock || {{
    mv ../lock "../lock.$$" && if alive "../lock.$$"; then mv "../lock.$$" ../lock; else rm -f "../lock.$$"; fi
  }} 2>/dev/null
  sleep 0.5 2>/dev/null || sleep 1
done
trap 'rm -f ../lock' EXIT
trap 'exit 143' HUP INT TERM
rm -f {WAITS}
"""
