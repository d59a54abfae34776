"""Programs that can be made to start others, run code or write anywhere, with what they do it by.

A free place in the arguments of one of these is worth a second look. The families are those that GTFOBins
collects; the list is of our own writing, and no such list is ever whole: what is not on it may do the same.
"""

from __future__ import annotations

import re

_CODE = "runs code that stands in its arguments, its input or a file"
_STARTS = "starts the program that its arguments name"
_PAGER = "starts a shell or an editor from its screen, and others by its options and settings"
_REMOTE = "starts programs by its options and settings, and reaches other machines"
_PACKAGES = "runs scripts of what it installs, and programs that its options name"
_WRITES = "writes, replaces or re-owns any file that its user can"
_DATABASE = "starts programs and writes files by commands in its input"
_BUILDS = "runs what its input files say"

_FAMILIES = (
    (
        _CODE,
        """
sh bash dash ash zsh ksh mksh csh tcsh fish rbash busybox toybox perl ruby irb node nodejs deno bun lua
luajit tclsh wish expect php python pypy ipython R Rscript julia guile ghci ghc scala jshell jrunscript
jjs groovy erl elixir iex gdb lldb gimp octave maxima gnuplot awk gawk mawk nawk original-awk bc dc m4
jq yq ed red vi vim vimdiff nvim view rview ex nano pico emacs emacsclient joe mc ranger cpulimit dotnet
pwsh slsh msfconsole
""",
    ),
    (
        _STARTS,
        """
env xargs parallel sudo doas su runuser pkexec setpriv capsh chroot unshare nsenter nice ionice chrt
taskset timeout time nohup setsid stdbuf unbuffer script scriptreplay watch entr flock start-stop-daemon
run-parts run-one systemd-run strace ltrace ptx valgrind perf setarch linux32 linux64 i386 x86_64
logsave softlimit chpst multitime at batch crontab daemonize detach dtach screen tmux tmate byobu
xvfb-run dbus-run-session aa-exec firejail bwrap cgexec numactl torify torsocks proxychains with-contenv
s6-setuidgid gosu su-exec choom prlimit uclampset rlwrap exec ld.so ld-linux.so hping3 ab agetty tasksh
fakeroot faketime eatmydata
""",
    ),
    (
        _PAGER,
        """
less more most pg man info lynx w3m links elinks mail mailx mutt crash top htop iftop bmon pidstat
nsupdate
""",
    ),
    (
        _REMOTE,
        """
ssh scp sftp rsync ftp lftp tftp telnet socat nc ncat netcat nmap curl wget aria2c openssl ansible
ansible-playbook ansible-test sshpass mosh rclone restic borg duplicity aws gcloud az kubectl helm
smbclient rlogin finger whois tcpdump tshark dumpcap ngrep ettercap bettercap openvpn wg-quick ip
dhclient pppd knife puppet salt-call chef-client
""",
    ),
    (
        _PACKAGES,
        """
apt apt-get aptitude dpkg dpkg-deb dpkg-reconfigure yum dnf rpm rpmquery rpmverify rpmdb zypper pacman
apk emerge pkg snap flatpak pip pip3 pipx easy_install npm npx yarn pnpm gem bundle bundler cargo
composer cpan cpanm go gradle mvn conda poetry brew opkg
""",
    ),
    (
        _BUILDS,
        """
make gmake cmake ninja rake just meson bazel gcc g++ cc c++ clang ld as tex latex pdftex pdflatex
xelatex lualatex context gs ghostscript convert magick ffmpeg docker podman nerdctl ctr runc lxc lxd
vagrant terraform packer jenkins systemctl journalctl loginctl hostnamectl timedatectl systemd-resolve
service rc-service initctl logrotate run-mailcap update-alternatives dmsetup lvm mount modprobe insmod
kmod ldconfig debugfs dosbox qemu xdg-open xelinks
""",
    ),
    (
        _DATABASE,
        "mysql mariadb psql sqlite3 redis-cli mongo mongosh sqlplus clickhouse-client duckdb neofetch",
    ),
    (
        _WRITES,
        """
cp mv dd tee install ln chmod chown chgrp chattr setfacl truncate shred split csplit patch ar cpio unzip
7z 7za 7zr gzip xz bzip2 zstd sponge rm rmdir mkfs mkfifo mknod touch uniq sort tail restic openvt wall
write base64 xxd sysctl passwd chpasswd useradd usermod userdel visudo vipw vigr
""",
    ),
)
#: Programs with an option that people overlook.
_OPTIONS = {
    "find": "starts programs by -exec, -execdir, -ok and deletes by -delete, writes by -fprintf",
    "git": "starts programs by -c core.pager=…, --ext-diff, aliases, hooks and settings of the repository",
    "tar": "starts programs by --to-command, --checkpoint-action, -I and --rsh-command",
    "rsync": "starts programs by -e and --rsync-path",
    "ssh": "starts programs by -o ProxyCommand=… and LocalCommand",
    "zip": "starts programs by -TT",
    "sed": "starts programs by the command `e` and writes by `w` and -i",
    "tcpdump": "starts programs by -z",
    "sort": "starts programs by --compress-program and writes by -o",
    "man": "starts programs by -P and -H",
    "split": "starts programs by --filter",
    "pidstat": "starts programs by -e",
    "wget": "starts programs by --use-askpass, writes by -O",
    "curl": "writes by -o, reads files by file:// and -K",
    "openssl": "loads code by -engine and -provider, reads and writes any file",
    "mount": "starts helpers, and puts other file systems in place",
    "ip": "starts programs by `netns exec`",
    "date": "reads any file by -f",
    "systemctl": "starts an editor by `edit`, and can start every service",
    "journalctl": "starts a pager",
    "apt-get": "starts programs by -o APT::Update::Pre-Invoke",
}
_VERSION = re.compile(r"[-.]?[0-9][0-9.]*$")


def describe_launcher(path: str) -> str | None:
    """Return what a program can be made to do, None where it is on no list; python3.11 is python."""
    name = path.rpartition("/")[2]
    for spelling in (name, _VERSION.sub("", name)):
        if spelling in _OPTIONS:
            return _OPTIONS[spelling]
        for text, names in _FAMILIES:
            if spelling in names.split():
                return text
    return None
