#!/bin/bash
# The first process of one host: called inside its namespaces with NAME FOLDER SYSTEM_HOME [PATH to keep visible]...
set -eu
name=$1 folder=$2 system_home=$3
shift 3
home=$folder/home/$name
hostname "rb-$name"
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
