# One small actor for the port tests: servers, clients and supervisors of every odd kind.
# Prints one line when it is ready.
use strict;
use warnings;
use Socket qw(:all);
use POSIX ();

$| = 1;
my ($role, @arguments) = @ARGV;

sub address {
    my ($ip, $port) = @_;
    return $ip =~ /:/
        ? pack_sockaddr_in6($port, inet_pton(AF_INET6, $ip))
        : pack_sockaddr_in($port, inet_pton(AF_INET, $ip));
}

sub bound {
    my ($type, $ip, $port, %with) = @_;
    my $family = $ip =~ /:/ ? AF_INET6 : AF_INET;
    socket(my $socket, $family, $type, 0) or die "socket: $!";
    setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, 1) unless $with{exclusive};
    setsockopt($socket, SOL_SOCKET, SO_REUSEPORT, 1) if $with{reuseport};
    setsockopt($socket, IPPROTO_IPV6, IPV6_V6ONLY, $with{dual} ? 0 : 1) if $family == AF_INET6;
    # A port that is being released may take a moment.
    for my $try (1 .. 200) {
        last if bind($socket, address($ip, $port));
        die "bind $ip $port: $!" if $try == 200;
        select(undef, undef, undef, 0.01);
    }
    return $socket;
}

sub listener {
    my $socket = bound(SOCK_STREAM, @_);
    listen($socket, 16) or die "listen: $!";
    return $socket;
}

# Between the execve and its words lies a moment.
sub await_words {
    my ($pid, $name) = @_;
    for my $try (1 .. 500) {
        open(my $file, '<', "/proc/$pid/cmdline") or return;
        my $words = <$file> // '';
        return if index($words, $name) == 0;
        select(undef, undef, undef, 0.01);
    }
}

sub ready { print "ready @_\n"; }
sub stay { sleep 600 while 1; }

if ($role eq 'serve') {
    my ($ip, $port, @with) = @arguments;
    my $socket = listener($ip, $port, map { $_ => 1 } @with);
    ready();
    stay();
}
elsif ($role eq 'accept') {
    my ($ip, $port) = @arguments;
    my $socket = listener($ip, $port);
    ready();
    my @open;
    while (accept(my $client, $socket)) { push @open, $client; print "accepted\n"; }
}
elsif ($role eq 'bind') {
    my ($ip, $port) = @arguments;
    my $socket = bound(SOCK_STREAM, $ip, $port, exclusive => 1);
    ready();
    stay();
}
elsif ($role eq 'udp') {
    my ($ip, $port, @with) = @arguments;
    my $socket = bound(SOCK_DGRAM, $ip, $port, exclusive => 1);
    if (@with) { connect($socket, address($with[0], $with[1])) or die "connect: $!"; }
    ready();
    stay();
}
elsif ($role eq 'prefork') {
    my ($ip, $port, $workers) = @arguments;
    my $socket = listener($ip, $port);
    my @pids;
    for (1 .. $workers) {
        my $pid = fork();
        if (!$pid) { stay(); }
        push @pids, $pid;
    }
    # A master that starts its workers again, as they do.
    my $end = 0;
    $SIG{TERM} = sub { $end = 1; kill 'TERM', @pids; };
    ready(@pids);
    while (1) {
        my $gone = waitpid(-1, 0);
        last if $end && $gone <= 0;
        next if $end || $gone <= 0;
        my $pid = fork();
        if (!$pid) { $SIG{TERM} = 'DEFAULT'; stay(); }
        push @pids, $pid;
    }
}
elsif ($role eq 'stubborn') {
    my ($ip, $port) = @arguments;
    $SIG{TERM} = 'IGNORE';
    my $socket = listener($ip, $port);
    ready();
    stay();
}
elsif ($role eq 'lets-go') {
    my ($ip, $port) = @arguments;
    my $socket = listener($ip, $port);
    ready();
    my $line = <STDIN>;
    close $socket;
    ready();
    stay();
}
elsif ($role eq 'family') {
    # A server with a child in a session of its own, and an orphan in its process group.
    my ($ip, $port) = @arguments;
    pipe(my $read, my $write);
    my $apart = fork();
    if (!$apart) { POSIX::setsid(); close $read; print $write "up\n"; close $write; stay(); }
    my $between = fork();
    if (!$between) {
        my $orphan = fork();
        if (!$orphan) { $SIG{TERM} = 'IGNORE'; close $read; syswrite $write, "$$\n"; close $write; stay(); }
        POSIX::_exit(0);
    }
    waitpid($between, 0);
    close $write;
    my $orphan = 0;
    while (my $line = <$read>) { $orphan = $1 if $line =~ /^(\d+)/; }
    my $socket = listener($ip, $port);
    ready($apart, $orphan);
    stay();
}
elsif ($role eq 'orchestra') {
    # Keeps a server alive and has other work besides.
    my ($ip, $port, $rounds) = @arguments;
    my $other = fork();
    if (!$other) { stay(); }
    for my $round (1 .. $rounds) {
        pipe(my $read, my $write);
        my $server = fork();
        if (!$server) {
            my $socket = listener($ip, $port);
            syswrite $write, "up\n";
            close $write;
            close STDOUT;
            stay();
        }
        close $write;
        my $line = <$read>;
        ready($other, $server);
        waitpid($server, 0);
    }
    stay();
}
elsif ($role eq 'watch') {
    # The shape of a watcher: itself, `sh -c`, the server; again and again.
    my ($ip, $port, $name) = @arguments;
    my $server = "perl $0 serve $ip $port; true";
    $0 = $name || 'nodemon';
    while (1) { system('sh', '-c', $server); }
}
elsif ($role eq 'once') {
    # A program of any name that has started a server of any name and goes on with its own work after it.
    my ($ip, $port, $name, $below) = @arguments;
    my $script = $0;
    $0 = $name;
    my $server = fork();
    if (!$server) {
        exec { 'perl' } ($below || 'perl'), $script, 'serve', $ip, $port;
    }
    waitpid($server, 0);
    stay();
}
elsif ($role eq 'opened') {
    # A server with another program in a session of its own, on a terminal if one is named.
    my ($ip, $port, $terminal, $program, @command) = @arguments;
    my $socket = listener($ip, $port);
    pipe(my $read, my $write);
    my $apart = fork();
    if (!$apart) {
        POSIX::setsid();
        if ($terminal ne '-') {
            open(STDIN, '+<', $terminal) or die "open: $!";
            open(STDOUT, '>&', \*STDIN);
            open(STDERR, '>&', \*STDIN);
        }
        exec { $program } @command;
    }
    close $write;
    # It ends with the execve.
    my $nothing = <$read>;
    await_words($apart, $command[0]);
    ready($apart);
    stay();
}
elsif ($role eq 'ports') {
    # A server with a second port, and a child in its group that has a third.
    my ($ip, $port, $second, $third) = @arguments;
    pipe(my $read, my $write);
    my $worker = fork();
    if (!$worker) {
        my $socket = listener($ip, $third);
        close $write;
        stay();
    }
    close $write;
    my $nothing = <$read>;
    my @sockets = (listener($ip, $port), listener($ip, $second));
    ready($worker);
    stay();
}
elsif ($role eq 'opens') {
    # The shape of a watcher that has opened something in a session of its own.
    my ($ip, $port, $name, $opened) = @arguments;
    my $script = $0;
    $0 = $name;
    pipe(my $read, my $write);
    my $other = fork();
    if (!$other) { POSIX::setsid(); close STDOUT; exec { 'perl' } $opened, $script, 'idle'; }
    close $write;
    # It ends with the execve.
    my $nothing = <$read>;
    await_words($other, $opened);
    ready($other);
    while (1) { system('sh', '-c', "perl $script serve $ip $port; true"); }
}
elsif ($role eq 'backoff') {
    # A supervisor that nobody knows by name: starts its server again after a pause.
    my ($ip, $port, $seconds, $name) = @arguments;
    $0 = $name || 'keep-it-up';
    while (1) {
        my $server = fork();
        if (!$server) {
            my $socket = listener($ip, $port);
            ready($$);
            close STDOUT;
            stay();
        }
        waitpid($server, 0);
        select(undef, undef, undef, $seconds);
    }
}
elsif ($role eq 'programs') {
    # A supervisor of two programs: a server, which it starts again, and one that waits.
    my ($ip, $port, $name) = @arguments;
    my $script = $0;
    $0 = $name;
    my $other = fork();
    if (!$other) { close STDOUT; exec 'sleep', '600'; }
    while (1) {
        my $server = fork();
        if (!$server) { exec 'perl', $script, 'serve', $ip, $port; }
        waitpid($server, 0);
    }
}
elsif ($role eq 'drains') {
    # Asked to end, it lets go of its port at once and finishes its work.
    my ($ip, $port) = @arguments;
    my $socket = listener($ip, $port);
    $SIG{TERM} = sub { close $socket if $socket; undef $socket; ready(); };
    ready();
    stay();
}
elsif ($role eq 'watchdog') {
    # Looks after a server that is no child of its: starts it by two forks whenever the port is free.
    my ($ip, $port) = @arguments;
    while (1) {
        pipe(my $read, my $write);
        my $between = fork();
        if (!$between) {
            my $server = fork();
            if ($server) { POSIX::_exit(0); }
            close $read;
            my $socket = listener($ip, $port);
            syswrite $write, "$$\n";
            # The other end of what it holds open tells the watchdog of its end.
            close STDOUT;
            stay();
        }
        waitpid($between, 0);
        close $write;
        my $line = <$read>;
        ready($line =~ /(\d+)/);
        $line = <$read>;
        # The port is seen to be free before that.
        select(undef, undef, undef, 0.4);
    }
}
elsif ($role eq 'lax') {
    # Binds as servers do, and does not listen.
    my ($ip, $port) = @arguments;
    my $socket = bound(SOCK_STREAM, $ip, $port);
    ready();
    stay();
}
elsif ($role eq 'manager') {
    # The shape of socket activation: the manager listens, its service in another cgroup has the socket, too.
    my ($ip, $port, $procs) = @arguments;
    $0 = 'systemd';
    my $socket = listener($ip, $port);
    pipe(my $read, my $write);
    my $service = fork();
    if (!$service) {
        $0 = 'web';
        open(my $cgroup, '>', $procs) or die "$procs: $!";
        print $cgroup $$;
        close $cgroup;
        close $write;
        close STDOUT;
        stay();
    }
    close $write;
    my $line = <$read>;
    ready($service);
    stay();
}
elsif ($role eq 'as') {
    # A server of another user.
    my ($uid, $ip, $port, @with) = @arguments;
    $) = $uid;
    $( = $uid;
    $< = $> = $uid;
    my $socket = listener($ip, $port, map { $_ => 1 } @with);
    ready();
    stay();
}
elsif ($role eq 'drops') {
    # Listens, and becomes another user after that.
    my ($uid, $ip, $port) = @arguments;
    my $socket = listener($ip, $port);
    $< = $> = $uid;
    ready();
    stay();
}
elsif ($role eq 'bequeath') {
    # A server whose socket is also open in a process that has nothing else to do with it any more.
    my ($ip, $port) = @arguments;
    my $socket = listener($ip, $port);
    pipe(my $read, my $write);
    my $between = fork();
    if (!$between) {
        POSIX::setsid();
        my $heir = fork();
        if (!$heir) { close $read; syswrite $write, "$$\n"; close $write; close STDOUT; stay(); }
        POSIX::_exit(0);
    }
    waitpid($between, 0);
    close $write;
    my $line = <$read>;
    ready($line =~ /(\d+)/);
    stay();
}
elsif ($role eq 'careless') {
    # Starts a server and never asks what became of it.
    my ($ip, $port) = @arguments;
    pipe(my $read, my $write);
    my $server = fork();
    if (!$server) {
        my $socket = listener($ip, $port);
        syswrite $write, "up\n";
        close $write;
        stay();
    }
    close $write;
    my $line = <$read>;
    ready($server);
    stay();
}
elsif ($role eq 'swap') {
    # At each line: ends its child and starts another one under the same pid, one that listens or one that
    # does nothing (in a namespace of its own).
    my ($ip, $port) = @arguments;
    my $child = 0;
    my $spawn = sub {
        my ($listens) = @_;
        if ($child) {
            kill 'KILL', $child;
            waitpid($child, 0);
            open(my $last, '>', '/proc/sys/kernel/ns_last_pid') or die "ns_last_pid: $!";
            print $last $child - 1;
            close $last;
        }
        pipe(my $read, my $write);
        my $pid = fork();
        if (!$pid) {
            my $socket = $listens ? listener($ip, $port) : undef;
            syswrite $write, "up\n";
            close $write;
            stay();
        }
        close $write;
        my $line = <$read>;
        $child = $pid;
        ready($child);
    };
    $spawn->(1);
    while (my $line = <STDIN>) { $spawn->($line =~ /^server/); }
}
elsif ($role eq 'shared') {
    # Two bound sockets that both allow the other; only the first listens.
    my ($ip, $port) = @arguments;
    my $first = bound(SOCK_STREAM, $ip, $port);
    my $second = bound(SOCK_STREAM, $ip, $port);
    listen($first, 16) or die "listen: $!";
    die 'two listeners' if listen($second, 16);
    close $second;
    ready();
    stay();
}
elsif ($role eq 'reload') {
    # The shape of a development server: the same command once more, told apart by a variable.
    my ($ip, $port) = @arguments;
    if ($ENV{RUN_MAIN}) {
        my $socket = listener($ip, $port);
        ready();
        stay();
    }
    $ENV{RUN_MAIN} = 1;
    while (1) { system('perl', $0, $role, @arguments); }
}
elsif ($role eq 'forked') {
    # A program with its own life, whose forked child serves.
    my ($ip, $port) = @arguments;
    my $server = fork();
    if (!$server) {
        my $socket = listener($ip, $port);
        ready();
        stay();
    }
    stay();
}
elsif ($role eq 'connect') {
    my ($from, $port, $to, $to_port) = @arguments;
    socket(my $socket, AF_INET, SOCK_STREAM, 0) or die "socket: $!";
    bind($socket, address($from, $port)) or die "bind: $!";
    connect($socket, address($to, $to_port)) or die "connect: $!";
    ready();
    stay();
}
elsif ($role eq 'reuse') {
    # At each line: ends its child and starts another one under the same pid (in a namespace of its own).
    my ($ip, $port) = @arguments;
    my $socket = listener($ip, $port);
    my $spawn = sub {
        my ($wanted) = @_;
        if ($wanted) {
            open(my $last, '>', '/proc/sys/kernel/ns_last_pid') or die "ns_last_pid: $!";
            print $last $wanted - 1;
            close $last;
        }
        my $pid = fork();
        if (!$pid) { stay(); }
        return $pid;
    };
    my $child = $spawn->(0);
    ready($child);
    while (<STDIN>) {
        kill 'KILL', $child;
        waitpid($child, 0);
        # Start times are counted in hundredths of a second.
        select(undef, undef, undef, 0.021);
        $child = $spawn->($child);
        ready($child);
    }
}
elsif ($role eq 'idle') {
    ready();
    stay();
}
else {
    die "unknown role $role";
}
