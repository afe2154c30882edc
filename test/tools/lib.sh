# Sourced by the scripts of test/ and .ci/, never run.
#
# Everything happens in one temporary directory, $work, that belongs to an
# unprivileged user (initdb refuses root: then it is "nobody"): a copy of the
# tree, a copy of the server into which the extension is installed, and the
# data directories.  PostgreSQL finds its libraries relative to its binaries,
# so such a copy works from anywhere, needs no right to install, and runs of
# several people on one machine do not meet.
# Leaving the script stops the servers and removes the directory;
# WEIR_KEEP=1 keeps it.

set -euo pipefail
umask 022
export LC_ALL=C
unset PGPORT PGOPTIONS PGSERVICE PGDATA PGTZ PGPASSWORD MAKEFLAGS MAKELEVEL MFLAGS CDPATH
[ -n "${WEIR_BENCH:-}" ] || unset PGHOST PGUSER PGDATABASE

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
work=

die()
{
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# The pg_config of a server that has its headers: $PG_CONFIG, or Debian's.
find_pg_config()
{
	local c v

	for c in ${PG_CONFIG:+"$PG_CONFIG"} \
		$(for v in 15 17 18 16; do echo "/usr/lib/postgresql/$v/bin/pg_config"; done) \
		"$(command -v pg_config || true)"
	do
		if [ -n "$c" ] && [ -f "$("$c" --pgxs 2>/dev/null)" ] &&
			[ -f "$("$c" --includedir-server)/postgres.h" ]; then
			echo "$c"
			return
		fi
		[ -z "${PG_CONFIG:-}" ] || break
	done
	return 1
}

make_work()
{
	local base=${TMPDIR:-/tmp}

	# nobody must be able to get there
	[ "$(id -u)" != 0 ] || runuser -u nobody -- test -x "$base" || base=/tmp
	work=$(mktemp -d "$base/pg_weir.XXXXXX")
	chmod 755 "$work"
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
}

# stop_servers [DIRECTORY...]: those that are left there, default in $work
stop_servers()
{
	local pidfile

	find "${@:-$work}" -name postmaster.pid 2>/dev/null | while read -r pidfile; do
		kill -QUIT "$(head -n 1 "$pidfile")" 2>/dev/null || true
	done
}

cleanup()
{
	local rc=$?

	trap '' INT TERM HUP
	set +e
	[ -n "$work" ] || return
	if [ -n "${demo_link:-}" ] && [ "$(readlink "$demo_link")" = "$work" ]; then
		rm -f "$demo_link"
	fi
	stop_servers
	if [ -n "${WEIR_KEEP:-}" ]; then
		echo "kept: $work" >&2
	else
		rm -rf "$work" 2>/dev/null || { sleep 1; rm -rf "$work"; }
	fi
	exit $rc
}

# Runs a command as the unprivileged user, in $work.
as_user()
{
	if [ "$(id -u)" = 0 ]; then
		(cd "$work" && exec runuser -u nobody -- env HOME="$work" TMPDIR="$work" "$@")
	else
		(cd "$work" && exec env HOME="$work" TMPDIR="$work" "$@")
	fi
}

own_work()
{
	[ "$(id -u)" != 0 ] || chown -R nobody "$work"
}

# $work/NAME becomes a copy of the tree without anything built.
copy_tree()
{
	mkdir -p "$work/$1"
	tar -C "$top" -cf - --exclude=./.git --exclude='*.o' --exclude='*.so' \
		--exclude='*.bc' --exclude=./tmp_check --exclude=./tmp_demo \
		--exclude=./results --exclude=./output_iso --exclude=./log \
		--exclude=./.build-flags --exclude=./test/tools/nexgen . |
		tar -C "$work/$1" -xf - --no-same-owner
	own_work
}

# $work/server becomes a copy of the server; sets PG_CONFIG and bin to it.
copy_server()
{
	local d

	PG_CONFIG=$(find_pg_config) ||
		die "no PostgreSQL server with headers found (PG_CONFIG=${PG_CONFIG:-unset})"
	[ -x "$("$PG_CONFIG" --bindir)/postgres" ] ||
		die "no server beside $PG_CONFIG"
	for d in $("$PG_CONFIG" --bindir --pkglibdir --sharedir); do
		mkdir -p "$work/server$d"
		tar -C "$d" -cf - --exclude=./bitcode --exclude=./man \
			--exclude="./pg_weir.so" --exclude='./extension/pg_weir*' . |
			tar -C "$work/server$d" -xf - --no-same-owner
	done
	for d in $("$PG_CONFIG" --includedir --pkgincludedir --includedir-server); do
		if [ ! -e "$work/server$d" ]; then
			mkdir -p "$work/server${d%/*}"
			ln -s "$d" "$work/server$d"
		fi
	done
	bin=$work/server$("$PG_CONFIG" --bindir)
	export PG_CONFIG=$bin/pg_config
	own_work
}

# Builds the copy of the tree and installs it into the copy of the server.
# build NAME [make variable...]
build()
{
	local tree=$1

	shift
	as_user make -s -j"$(nproc)" -C "$work/$tree" PG_CONFIG="$PG_CONFIG" "$@" all &&
		as_user make -s -C "$work/$tree" PG_CONFIG="$PG_CONFIG" "$@" install
}

# start_server NAME [line of postgresql.conf...]: a fresh server on the socket
# in $work.  Sets what psql and pgbench need to find it.
start_server()
{
	local data=$work/$1

	shift
	as_user "$bin/initdb" -D "$data" -N -A trust -U postgres -E UTF8 \
		--locale=C >"$work/initdb.log" 2>&1 || { cat "$work/initdb.log" >&2; return 1; }
	{
		cat <<-CONF
			listen_addresses = ''
			unix_socket_directories = '$work'
			shared_preload_libraries = 'pg_weir'
			max_worker_processes = 16
			max_prepared_transactions = 20
			timezone = 'UTC'
		CONF
		[ $# = 0 ] || printf '%s\n' "$@"
	} >>"$data/postgresql.conf"
	export PGHOST=$work PGUSER=postgres PGDATABASE=postgres PATH="$bin:$PATH"
	run_server "$data"
}

# Starts a stopped server again.
run_server()
{
	as_user "$bin/pg_ctl" -D "$1" -l "$1.log" -w -t 120 start >"$work/pg_ctl.log" 2>&1 || {
		cat "$work/pg_ctl.log" >&2
		tail -n 30 "$1.log" >&2
		return 1
	}
}

# stop_server DATADIR [mode]
stop_server()
{
	as_user "$bin/pg_ctl" -D "$1" -m "${2:-fast}" -w -t 120 stop >"$work/pg_ctl.log" 2>&1
}

postmaster_pid()
{
	head -n 1 "$1/postmaster.pid"
}

# Sums the results in the output of pg_regress or prove -v: "PASSED FAILED".
tally()
{
	awk '
		/\.\.\. +ok +[0-9]+ ms/ { p++; next }				# pg_regress 15
		/\.\.\. +(FAILED|failed)/ { f++; next }
		/^ok [0-9]+/ { p++; next }							# TAP, pg_regress 16+
		/^not ok [0-9]+.*# TODO/ { p++; next }
		/^not ok [0-9]+/ { f++; next }
		END { print p + 0, f + 0 }' "$1"
}

# What failed, in the output of pg_regress or prove -v: the tests with their
# files, what they said, and the files that did not end well.
failures()
{
	awk '
		/^test\/.*\.pl \.\./ { file = $1 }
		/^not ok [0-9]+/ && !/# TODO/ { print (file != "" ? file ": " : "") $0; next }
		/\.\.\. +(FAILED|failed)/ || /^Bail out!|^FAILED--/ { print; next }
		/^# +Failed test/ { said = 16 }
		/^#/ && said > 0 && nsaid < 80 { said--; nsaid++; print "  " $0 }
		/^Test Summary Report/ { report = 1 }
		report { print }' "$1"
}
