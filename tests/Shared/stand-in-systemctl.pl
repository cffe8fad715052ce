#!/usr/bin/perl
# systemctl(1) and journalctl(1) for template units of one process, where no systemd runs. Unit files, drop-ins and environment
# files are parsed by the rules of systemd 252: systemd.unit(5), systemd.service(5) "Command lines", systemd.exec(5). The processes are
# real, each in a session of its own, supervised by a process that nobody else is the parent of. They get the unit's capabilities,
# NoNewPrivileges and LimitNOFILE; what else it says of sandboxes, and cgroups, is not imitated.
# Beside it: units/ (unit files and NAME.d/*.conf), state/UNIT/, journal/INVOCATION, log (what was asked);
# hangs (a verb a line: it does not return), gone (what it says when there is no bus).
use strict;
use warnings;
use POSIX qw(:sys_wait_h setsid);
use Fcntl qw(F_SETFD FD_CLOEXEC);

my ($here) = $0 =~ m{^(.*)/};
my $program = substr($0, length($here) + 1);
chdir $here or die "$here: $!";

sub slurp { my $path = shift; open(my $in, '<:raw', $path) or return undef; local $/; my $text = <$in>; return $text // '' }
sub put {
    my ($path, $text) = @_;
    open(my $out, '>:raw', "$path.$$") or die "$path: $!";
    print $out $text;
    close $out;
    rename "$path.$$", $path or die "$path: $!";
}
sub pause { select undef, undef, undef, 0.01 }
sub fail { my ($code, $text) = @_; print STDERR "$text\n"; exit $code }

open(my $log, '>>', 'log') or die;
syswrite $log, join(' ', $program, @ARGV) . "\n";
close $log;

if ($program eq 'journalctl') {
    my ($invocation) = map { /^_SYSTEMD_INVOCATION_ID=([0-9a-f]{32})$/ ? $1 : () } @ARGV;
    my ($count) = map { /^--lines=(\d+)$/ ? $1 : () } @ARGV;
    fail(1, "stand-in: @ARGV is not imitated") unless $invocation && grep { $_ eq '--output=cat' } @ARGV;
    my @lines = split /^/, slurp("journal/$invocation") // '';
    print @lines > $count ? @lines[-$count .. -1] : @lines;
    exit 0;
}

my $verb = shift @ARGV // '';
if (defined(my $said = slurp('gone'))) { chomp $said; fail(1, $said) }
if (grep { $_ eq $verb } split /\n/, slurp('hangs') // '') { sleep 1000 while 1 }

# ---- units

# Section.Key -> values in order; an empty one forgets those before it.
sub read_settings {
    my ($settings, $path) = @_;
    my $text = slurp($path);
    $text =~ s/\\\n/ /g;
    my $section = '';
    for (split /\n/, $text) {
        s/^\s+|\s+$//g;
        next if $_ eq '' || /^[#;]/;
        if (/^\[(.+)\]$/) { $section = $1; next }
        my ($key, $value) = /^([^=]+?)\s*=\s*(.*)$/ or next;
        if ($value eq '') { $settings->{"$section.$key"} = [] } else { push @{ $settings->{"$section.$key"} }, $value }
    }
}

sub unescaped { my $text = shift; $text =~ s/\\x([0-9a-f]{2})|(-)/$2 ? '\/' : chr hex $1/ge; return $text }

sub load {
    my $name = shift;
    my ($template, $instance) = $name =~ /^([^@]+@)(.+)\.service$/ or return { name => $name, state => 'not-found' };
    $template .= '.service';
    my $file = "units/$template";
    my $unit = { name => $name, file => "$here/$file", state => 'loaded', settings => {} };
    return { %$unit, state => 'masked' } if -l $file && readlink($file) eq '/dev/null';
    return { %$unit, state => 'not-found' } unless -e $file;
    read_settings($unit->{settings}, $file);
    my @drop_ins;
    for my $directory ("units/$template.d", "units/$name.d") {
        opendir(my $entries, $directory) or next;
        push @drop_ins, map { "$directory/$_" } sort grep { /\.conf$/ } readdir $entries;
    }
    read_settings($unit->{settings}, $_) for @drop_ins;
    $unit->{drop_ins} = join ' ', map { "$here/$_" } @drop_ins;
    my %specifiers = ('%' => '%', i => $instance, I => unescaped($instance), n => $name);
    for my $values (values %{ $unit->{settings} }) {
        s/%(.)/$specifiers{$1} \/\/ fail(1, "stand-in: %$1 is not imitated")/ge for @$values;
    }
    return { %$unit, state => 'bad-setting' } unless @{ $unit->{settings}{'Service.ExecStart'} // [] };
    return $unit;
}

sub setting { my ($unit, $key, $default) = @_; my $values = $unit->{settings}{"Service.$key"}; return $values && @$values ? $values->[-1] : $default }

# ---- state

sub about { my ($name, $key, $default) = @_; my $text = slurp("state/$name/$key"); return defined $text && $text ne '' ? $text : $default }
sub note { my ($name, %values) = @_; mkdir 'state'; mkdir "state/$name"; put("state/$name/$_", $values{$_}) for keys %values }

# ---- what systemd reads of files

# src/basic/env-file.c
sub read_environment {
    my $path = shift;
    my $optional = $path =~ s/^-//;
    my $text = slurp($path);
    return $optional ? () : undef unless defined $text;
    my %values;
    pos($text) = 0;
    while (pos($text) < length $text) {
        next if $text =~ /\G\s+/gc;
        if ($text =~ /\G[#;](?:\\.|[^\n\\])*\n?/gcs) { next }
        if ($text =~ /\G[^\n=]*(?:\n|\z)/gc) { next }
        $text =~ /\G([^=\n]*)=[ \t]*/gc or last;
        my $key = $1;
        $key =~ s/\s+$//;
        my $value = '';
        # A value of quoted pieces, or one without quotes.
        while (1) {
            if ($text =~ /\G"((?:\\.|[^"\\])*)"[ \t]*/gcs) {
                my $piece = $1;
                $piece =~ s/\\(.)/index("\"\\`\$", $1) >= 0 ? $1 : $1 eq "\n" ? '' : "\\$1"/gse;
                $value .= $piece;
            }
            elsif ($text =~ /\G'([^']*)'[ \t]*/gcs) { $value .= $1 }
            else { last }
        }
        if ($text =~ /\G((?:\\.|[^\n\\])+)/gcs) {
            my $rest = $1;
            $rest =~ s/\s+$// unless $rest =~ /\\\s$/;
            $rest =~ s/\\(.)/$1 eq "\n" ? '' : $1/gse;
            $value .= $rest;
        }
        $text =~ /\G\n/gc;
        $values{$key} = $value if $key =~ /^[A-Za-z_][A-Za-z0-9_]*$/;
    }
    return %values;
}

# src/basic/extract-word.c: quotes are removed, a backslash saves any character.
sub words {
    my $text = shift;
    my @words;
    pos($text) = 0;
    while ($text !~ /\G\s*\z/gc) {
        $text =~ /\G\s+/gc;
        my $word = '';
        while (1) {
            if ($text =~ /\G\\(.)/gcs) { $word .= $1 }
            elsif ($text =~ /\G"((?:\\.|[^"\\])*)"/gcs || $text =~ /\G'((?:\\.|[^'\\])*)'/gcs) { my $piece = $1; $piece =~ s/\\(.)/$1/gs; $word .= $piece }
            elsif ($text =~ /\G([^\s"'\\]+)/gc) { $word .= $1 }
            else { last }
        }
        push @words, $word;
    }
    return @words;
}

sub command_line {
    my ($text, $environment) = @_;
    my ($path, @rest) = words($text);
    fail(1, "stand-in: $path is not imitated") unless $path =~ m{^/} && $path !~ /\$/;
    return ($path, map {
        /^\$([A-Za-z_][A-Za-z0-9_]*)$/ ? words($environment->{$1} // '')
        : do { my $word = $_; $word =~ s/\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)\}/defined $1 ? $environment->{$1} \/\/ '' : '$'/ge; $word }
    } @rest);
}

# ---- processes

sub ended {
    my ($unit, $status) = @_;
    my ($code, $number) = WIFEXITED($status) ? (1, WEXITSTATUS($status)) : (2, WTERMSIG($status));
    my %fine = map { $_ => 1 } split /\s+/, setting($unit, 'SuccessExitStatus', '');
    # Clean signals: HUP, INT, PIPE, TERM (systemd.service(5), SuccessExitStatus=).
    my $clean = $code == 1 ? $number == 0 || $fine{$number} : grep { $number == $_ } 1, 2, 13, 15;
    note($unit->{name}, main => 0, code => $code, status => $number, result => $clean ? 'success' : $code == 1 ? 'exit-code' : 'signal');
    note($unit->{name}, active => $clean ? 'inactive' : 'failed');
}

sub start {
    my $unit = shift;
    my $name = $unit->{name};
    fail(5, "Failed to start $name: Unit $name not found.") if $unit->{state} eq 'not-found';
    fail(1, "Failed to start $name: Unit $name is masked.") if $unit->{state} eq 'masked';
    fail(1, "Failed to start $name: Unit $name has a bad unit file setting.\nSee system logs and 'systemctl status $name' for details.") if $unit->{state} ne 'loaded';
    return if about($name, 'active', 'inactive') eq 'active';
    fail(1, 'stand-in: Type=' . setting($unit, 'Type', 'simple') . ' is not imitated') unless setting($unit, 'Type', 'simple') eq 'exec';
    fail(1, 'stand-in: Restart=' . setting($unit, 'Restart', 'no') . ' is not imitated') unless setting($unit, 'Restart', 'no') eq 'no';
    my $invocation = join '', map { sprintf '%02x', int rand 256 } 1 .. 16;
    note($name, invocation => $invocation);
    my %environment = (PATH => '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin', LANG => 'C.UTF-8', INVOCATION_ID => $invocation, JOURNAL_STREAM => '8:1');
    for my $file (@{ $unit->{settings}{'Service.EnvironmentFile'} // [] }) {
        my @read = read_environment($file);
        if (@read == 1) {
            note($name, active => 'failed', result => 'resources', main => 0, code => 0, status => 0);
            fail(1, "Job for $name failed because of unavailable resources or another system error.\nSee \"systemctl status $name\" and \"journalctl -xeu $name\" for details.");
        }
        %environment = (%environment, @read);
    }
    my @command = command_line(setting($unit, 'ExecStart'), \%environment);
    my @bounded = map { split /\s+/ } @{ $unit->{settings}{'Service.CapabilityBoundingSet'} // [] };
    unshift @command, '/usr/bin/setpriv', '--bounding-set', join(',', '-all', map { '+' . lc substr $_, 4 } @bounded), '--inh-caps', '-all',
        setting($unit, 'NoNewPrivileges', 'no') eq 'yes' ? '--no-new-privs' : () if @bounded;
    # systemd may raise limits, and root on this machine perhaps not.
    my ($hard) = slurp('/proc/self/limits') =~ /^Max open files +\d+ +(\d+)/m;
    my $files = setting($unit, 'LimitNOFILE', $hard);
    unshift @command, '/usr/bin/prlimit', "--nofile=$files" if $files <= $hard;
    mkdir 'journal';
    pipe(my $executed, my $executes) or die;
    fcntl($executes, F_SETFD, FD_CLOEXEC);
    note($name, active => 'activating', main => 0, code => 0, status => 0, result => 'success');
    my $supervisor = fork // die;
    if ($supervisor == 0) {
        close $executed;
        setsid();
        exit 0 if fork // die; # nobody's child
        open(STDIN, '<', '/dev/null');
        open(STDOUT, '>', '/dev/null');
        open(STDERR, '>', '/dev/null');
        my $main = fork // die;
        if ($main == 0) {
            setsid();
            open(STDOUT, '>>', "$here/journal/$invocation");
            open(STDERR, '>&STDOUT');
            umask oct setting($unit, 'UMask', '0022');
            chdir setting($unit, 'WorkingDirectory', '/');
            %ENV = %environment;
            { no warnings; exec { $command[0] } @command }
            syswrite $executes, "$!";
            POSIX::_exit(203);
        }
        close $executes;
        note($name, main => $main, active => 'active');
        waitpid $main, 0;
        ended($unit, $?);
        POSIX::_exit(0);
    }
    close $executes;
    waitpid $supervisor, 0;
    my $why = do { local $/; <$executed> };
    pause() while about($name, 'active', '') eq 'activating';
    if ($why) {
        pause() while about($name, 'active', '') eq 'active';
        fail(1, "Job for $name failed because the control process exited with error code.\nSee \"systemctl status $name\" and \"journalctl -xeu $name\" for details.");
    }
}

sub stop {
    my $unit = shift;
    my $name = $unit->{name};
    fail(5, "Failed to stop $name: Unit $name not loaded.") if $unit->{state} eq 'not-found' && !-d "state/$name";
    my $main = about($name, 'main', 0) or return;
    note($name, active => 'deactivating');
    my %signals = (SIGTERM => 15, SIGINT => 2, SIGKILL => 9, SIGUSR1 => 10);
    kill $signals{ setting($unit, 'KillSignal', 'SIGTERM') }, $main;
    my ($limit) = setting($unit, 'TimeoutStopSec', '90s') =~ /^(\d+)s?$/;
    my $rounds = 0;
    while (about($name, 'active', '') eq 'deactivating') {
        kill 9, $main if $rounds++ == $limit * 100;
        pause();
    }
}

if ($verb eq 'show') {
    my ($asked) = map { $ARGV[$_] eq '-p' ? $ARGV[ $_ + 1 ] : () } 0 .. $#ARGV;
    my $unit = load($ARGV[-1]);
    my $name = $unit->{name};
    my %known = (
        LoadState => $unit->{state}, ActiveState => about($name, 'active', 'inactive'), Result => about($name, 'result', 'success'), ExecMainCode => about($name, 'code', 0),
        ExecMainStatus => about($name, 'status', 0), MainPID => about($name, 'main', 0), InvocationID => about($name, 'invocation', ''), FragmentPath => $unit->{file} // '',
        DropInPaths => $unit->{drop_ins} // '', NeedDaemonReload => 'no', Type => setting($unit, 'Type', 'simple'), Restart => setting($unit, 'Restart', 'no'),
        RemainAfterExit => setting($unit, 'RemainAfterExit', 'no'), RuntimeMaxUSec => setting($unit, 'RuntimeMaxSec', 'infinity'), WatchdogUSec => setting($unit, 'WatchdogSec', '0'),
        SubState => about($name, 'active', '') eq 'active' ? 'running' : 'dead',
        LoadError => $unit->{state} eq 'not-found' ? "org.freedesktop.systemd1.NoSuchUnit \"Unit $name not found.\"" : $unit->{state} eq 'masked' ? "org.freedesktop.systemd1.UnitMasked \"Unit $name is masked.\"" : '',
    );
    for my $property (split /,/, $asked) {
        if ($property eq 'EnvironmentFiles') { print "EnvironmentFiles=$_ (ignore_errors=no)\n" for @{ $unit->{settings}{'Service.EnvironmentFile'} // [] } }
        elsif (defined $known{$property}) { print "$property=$known{$property}\n" }
    }
}
elsif ($verb eq 'start') { start(load($ARGV[-1])) }
elsif ($verb eq 'stop') { stop(load($ARGV[-1])) }
elsif ($verb eq 'reset-failed') {
    my $name = $ARGV[-1];
    fail(1, "Failed to reset failed state of unit $name: Unit $name not loaded.") unless about($name, 'active', 'inactive') eq 'failed';
    note($name, active => 'inactive', result => 'success');
}
elsif ($verb eq 'daemon-reload') { }
else { fail(1, "Unknown command verb $verb.") }
