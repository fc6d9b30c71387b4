#!/bin/bash
# The first process of one host: called inside its namespaces with NAME FOLDER SYSTEM_HOME OWN [PATH to keep visible]...
# OWN, if not empty, is a folder that this host may change without anybody else seeing it.
set -eu
name=$1 folder=$2 system_home=$3 own=$4
shift 4
home=$folder/home/$name
hostname "rb-$name"
if [ "$name" = ctl ]; then  # ssh names its sockets by it, and /tmp is everybody's
  hostname "rb-ctl-$(basename "$folder" | tr -cd a-z0-9)"
fi
mount --make-rprivate /
for keep in "$@"; do  # what lies below the home that is about to be covered
  mkdir -p "$home/${keep#"$system_home"/}"
  mount --bind "$keep" "$home/${keep#"$system_home"/}"
done
mount --rbind "$home" "$system_home"
mkdir -p /tmp/ray
mount -t tmpfs -o size=2g tmpfs /tmp/ray
mount -t tmpfs -o size=600m tmpfs /dev/shm
mount -t tmpfs -o size=16m tmpfs /run
mkdir /run/sshd
if [ "$own" ]; then
  mkdir "$folder/own-$name"
  mount -t tmpfs -o size=1g tmpfs "$folder/own-$name"
  mkdir "$folder/own-$name/changed" "$folder/own-$name/work"
  mount -t overlay -o "lowerdir=$own,upperdir=$folder/own-$name/changed,workdir=$folder/own-$name/work" overlay "$own"
fi
{ grep -v ^ubuntu: /etc/passwd; echo "ubuntu:x:0:0::$system_home:/bin/bash"; } > /run/passwd
mount --bind /run/passwd /etc/passwd  # the user of a cloud image
cat > /run/sshd_config <<END
Port 22
HostKey $folder/hostkey
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PidFile none
END
export HOME=$system_home
touch "$folder/$name.ready"
if [ "$name" = ctl ]; then exec sleep infinity; fi
/usr/sbin/sshd -D -e -f /run/sshd_config &
wait
