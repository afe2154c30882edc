# Sourced by the scripts that test in a chroot of another Debian, after lib.sh.
#
# chroot_make VERSION DIR: DIR becomes, unless it is one, the Debian that has
# that version of PostgreSQL: 17 is in trixie, 18 in forky.
# chroot_run DIR VARIABLE=VALUE... SCRIPT ARGUMENT...: replaces this process by
# one that runs a script of a copy of the tree in there.
#
# Both leave with status 77, and say why, if this machine cannot have a chroot
# for a reason that has nothing to do with pg_weir: no root, no right to mount,
# no mirror to be reached.  Everything else that goes wrong is a failure.
#
# DEBIAN_MIRROR, DEBIAN_SECURITY_MIRROR: where the packages come from.
# WEIR_APT_STALE=1: accept, in the chroot, a mirror whose index is past its
# Valid-Until (a mirror of a moving suite that stopped moving); signatures are
# still checked.  Your decision, so off unless this machine's apt does so too.

mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
security_mirror=${DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security}

cannot()
{
	printf '%s: cannot make a chroot here: %s\n' "${0##*/}" "$*" >&2
	exit 77
}

# chroot_suites VERSION: the suite that has it, and its security suite if any
chroot_suites()
{
	case $1 in
		15) echo bookworm bookworm-security ;;
		17) echo trixie trixie-security ;;
		18) echo forky ;;
	esac
}

reachable()
{
	local file rc=0

	file=$(mktemp)
	/usr/lib/apt/apt-helper download-file "$1" "$file" >/dev/null 2>&1 || rc=$?
	rm -f "$file"
	return $rc
}

chroot_make()
{
	local version=$1 dir=$2 suite security script=

	read -r suite security <<<"$(chroot_suites "$version")"
	[ "$(id -u)" = 0 ] || cannot "not root"
	unshare --mount sh -c 'mount -t tmpfs tmpfs /mnt && mount -t proc proc /mnt' 2>/dev/null ||
		cannot "no right to mount"
	mkdir -p "$dir"
	exec 9>"$dir.lock"
	flock 9
	if [ ! -e "$dir/.complete" ]; then
		reachable "$mirror/dists/$suite/Release" || cannot "$mirror is out of reach"
		command -v debootstrap >/dev/null || {
			apt-get -qq update
			DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install debootstrap
		} >"$dir.log" 2>&1 || { tail -n 20 "$dir.log" >&2; die "cannot install debootstrap"; }
		rm -rf "$dir"
		mkdir -p "$dir"
		# an older debootstrap knows no script of a newer suite; they are all the same
		[ -e "/usr/share/debootstrap/scripts/$suite" ] || script=/usr/share/debootstrap/scripts/sid
		echo "# debootstrap $suite into $dir"
		debootstrap --variant=minbase --include=ca-certificates,make,gcc,perl "$suite" "$dir" "$mirror" $script >"$dir.log" 2>&1 ||
			{ tail -n 20 "$dir.log" >&2; die "debootstrap failed"; }
		# Plain trixie may carry an older minor than its security suite.
		[ -z "$security" ] || echo "deb $security_mirror $security main" >>"$dir/etc/apt/sources.list"
		# no daemons
		printf '#!/bin/sh\nexit 101\n' >"$dir/usr/sbin/policy-rc.d"
		chmod 755 "$dir/usr/sbin/policy-rc.d"
		touch "$dir/.complete"
	fi
	exec 9>&-
	mkdir -p "$dir/pg_weir"

	# apt reaches and judges a mirror as it does on this machine
	{
		apt-config dump | grep -E '^Acquire::([a-z]+::(Proxy|Timeout)|Check-(Date|Valid-Until)|Retries)( |::)' || true
		[ -z "${WEIR_APT_STALE:-}" ] || echo 'Acquire::Check-Valid-Until "false";'
	} >"$dir/etc/apt/apt.conf.d/99pg_weir"
}

chroot_run()
{
	local dir=$1 v pass=()

	shift
	for v in http_proxy https_proxy; do
		[ -z "${!v:-}" ] || pass+=("$v=${!v}")
	done
	# The mounts are this shell's alone and vanish with it, the copy of the tree too.
	exec unshare --mount bash -ec '
		top=$1 dir=$2
		shift 2
		mount -t proc proc "$dir/proc"
		mkdir -p "$dir/dev/shm"
		mount -t tmpfs -o mode=1777 tmpfs "$dir/dev/shm"
		mount -t tmpfs -o mode=755 tmpfs "$dir/pg_weir"
		tar -C "$top" -cf - --exclude=./.git --exclude="*.o" --exclude="*.so" \
			--exclude=./tmp_check --exclude=./tmp_demo --exclude=./results \
			--exclude=./.build-flags --exclude=./test/tools/nexgen . |
			tar -C "$dir/pg_weir" -xf - --no-same-owner
		cp /etc/resolv.conf "$dir/etc/resolv.conf" 2>/dev/null || true
		exec chroot "$dir" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "$@"' \
		bash "$top" "$dir" "${pass[@]}" "$@"
}
