using FlipController.Linux.Unmanaged;
using FlipController.Tests.Shared;

namespace FlipController.Linux.Tests.Unmanaged;

/// <summary>
/// A systemctl for one unit, haproxy.service, where no systemd runs: it supervises a real <c>haproxy -Ws</c>. What it imitates was
/// seen on systemd 252 with Debian's unit: Restart=always; a master that says STOPPING=1 is waited for TimeoutStopSec and then killed
/// with all its connections, unless the type needs no notifications; a drop-in counts from daemon-reload on; a start of a unit that
/// stops waits for its end.
/// </summary>
internal sealed class StandInSystemd
{
    private const string Systemctl = """
        #!/bin/bash
        # Files: loaded (what counts), main (the main pid, 0: none), state (ActiveState), notes (sd_notify), log (what was asked).
        here=$(dirname "$0"); cd "$here" || exit 1
        echo "$*" >>log
        get() { sed -n "s/^$1=//p" loaded | tail -1; }
        load() {
            printf 'Restart=always\nType=notify\nNotifyAccess=main\nTimeoutStopSec=1\n' >loaded.new
            cat units/haproxy.service.d/*.conf >>loaded.new 2>/dev/null
            # A type that needs notifications has them: service_add_extras in systemd's src/core/service.c.
            grep -q '^Type=simple' loaded.new || sed -i 's/^NotifyAccess=none/NotifyAccess=main/' loaded.new
            mv loaded.new loaded
        }
        [ -e loaded ] || load
        supervise() {
            socat -u UNIX-RECV:notify OPEN:notes,creat,append & listener=$!
            while ! [ -S notify ]; do sleep 0.01; done # who speaks before that is not heard
            while :; do
                : >notes
                NOTIFY_SOCKET=$PWD/notify haproxy -Ws -f haproxy.cfg -p pid & main=$!
                echo $main >main
                while kill -0 $main 2>/dev/null; do
                    grep -q READY=1 notes && [ "$(<state)" = activating ] && echo active >state
                    if [ "$(get NotifyAccess)" = none ]; then
                        : >notes # not listened to, so not remembered either
                    elif grep -q STOPPING=1 notes; then
                        echo deactivating >state
                        sleep "$(get TimeoutStopSec)"
                        kill -9 $(pgrep -P $main) $main
                    fi
                    sleep 0.02
                done
                wait $main; code=$?
                echo 0 >main
                if [ "$(get Restart)" = no ]; then
                    kill $listener
                    if [ $code = 0 ] || [ $code = 143 ]; then echo inactive >state; else echo failed >state; fi
                    return
                fi
                echo activating >state
                sleep 0.1
            done
        }
        state=$(cat state 2>/dev/null || echo inactive)
        case $1 in
            show)
                printf 'MainPID=%s\nActiveState=%s\nRestart=%s\nType=%s\nNotifyAccess=%s\n' \
                    "$(cat main 2>/dev/null || echo 0)" "$state" "$(get Restart)" "$(get Type)" "$(get NotifyAccess)" ;;
            daemon-reload) load ;;
            reset-failed) [ "$state" = failed ] && echo inactive >state; true ;;
            reload)
                [ "$state" = active ] || { echo "$2 is not active, cannot reload." >&2; exit 1; }
                haproxy -Ws -f haproxy.cfg -c -q >/dev/null 2>&1 || { echo "Job for $2 failed." >&2; exit 1; }
                kill -USR2 "$(<main)" ;;
            start)
                while [ "$(cat state 2>/dev/null)" = deactivating ]; do sleep 0.05; done
                [ "$(cat state 2>/dev/null)" = active ] && exit 0
                haproxy -Ws -f haproxy.cfg -c -q >/dev/null 2>&1 || { echo failed >state
                    echo "Job for $2 failed because the control process exited with error code." >&2; exit 1; }
                echo activating >state; rm -f notify notes
                supervise </dev/null >/dev/null 2>&1 & disown
                while [ "$(<state)" = activating ]; do sleep 0.02; done ;;
            *) echo "Unknown command verb $1." >&2; exit 1 ;;
        esac
        """;

    private readonly TempDir _directory;

    /// <param name="host">Its configuration haproxy is the unit's.</param>
    internal StandInSystemd(UnmanagedHost host)
    {
        Require.Program("socat");
        _directory = host.Directory;
        string program = _directory.Write("systemctl", Systemctl);
        File.SetUnixFileMode(program, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        Directory.CreateDirectory(_directory["units"]);
        // In place of the kernel, which cannot be told another group here.
        Systemd = new Systemd(program, _directory["units"]) { CgroupOf = _ => "0::/system.slice/haproxy.service" };
    }

    internal Systemd Systemd { get; }

    internal string DropIn => _directory["units/haproxy.service.d/50-flipcontroller.conf"];

    internal IEnumerable<string> Asked => File.ReadLines(_directory["log"]);
}
