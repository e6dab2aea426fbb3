#!/bin/sh
# First boot of a box: a name, ping for the agent's group, logs that spare the card, a clock that is kept. Run as root:
#   first-boot.sh c7k2m-01
# It may be run again; it says what it does and stops at the first thing that fails.
set -eu
name=${1:?the id of this edge node, as in edge.toml}
root=${ROOT:-}    # another root folder, for whoever prepares cards or tests

say() { echo "first boot: $*"; }

write() {  # write FILE, from standard input
  mkdir -p "$(dirname "$root$1")"
  cat > "$root$1"
  say "wrote $1"
}

case $name in
  *[!a-zA-Z0-9-]* | "") echo "first boot: '$name' is no name for a machine; letters, digits and '-' only" >&2; exit 1 ;;
esac
echo "$name" | write /etc/hostname
write /etc/sysctl.d/90-hamlet.conf <<'EOF'
# Whoever runs here may ping; the agent's watch over switches and hotspots needs it.
net.ipv4.ping_group_range = 0 2147483647
EOF
write /etc/systemd/journald.conf.d/90-hamlet.conf <<'EOF'
[Journal]
# In memory: the card's life is for readings.
Storage=volatile
RuntimeMaxUse=32M
EOF
write /etc/systemd/timesyncd.conf.d/90-hamlet.conf <<'EOF'
[Time]
NTP=0.vn.pool.ntp.org 1.vn.pool.ntp.org
# The clock is written back to the clock module, which keeps it through a power cut.
SaveIntervalSec=600
EOF
config=$root/boot/firmware/config.txt
if [ -f "$config" ] && ! grep -q '^dtoverlay=i2c-rtc' "$config"; then
  echo 'dtoverlay=i2c-rtc,ds3231' >> "$config"
  say "added the clock module (DS3231) to config.txt"
fi
say "done; restart the box"
