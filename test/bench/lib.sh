# Sourced by the scripts of test/bench/: a server to measure on, CPU clocks,
# medians.  test/bench/run starts one server for all scripts; a script run by
# itself starts its own.
#
# Every script prints lines "measure|ours|heap|ratio|target"; ours and heap
# come from runs that alternate on the same server.  SMOKE=1: tiny sizes, once,
# only to see that the script works.

. "$(dirname "${BASH_SOURCE[0]}")/../tools/lib.sh"

if [ -n "${SMOKE:-}" ]; then
	N=20000			# events of a load
	G=2000			# what "1 M groups" becomes
	REPEAT=1
	SECS=1
else
	N=${N:-3000000}
	G=${G:-1000000}
	REPEAT=${REPEAT:-3}
	SECS=${SECS:-5}
fi

bench_server()
{
	"$top/test/tools/install-deps"
	make_work
	copy_server
	copy_tree src
	build src >"$work/build.log" 2>&1 || { tail -n 30 "$work/build.log" >&2; exit 1; }
	as_user make -s -C "$work/src" PG_CONFIG="$PG_CONFIG" test/tools/nexgen
	start_server data \
		"shared_buffers = '${SHARED_BUFFERS:-1GB}'" "max_wal_size = '8GB'" \
		"checkpoint_timeout = '1h'" "wal_level = replica" "jit = off" \
		"autovacuum = off" "max_parallel_workers_per_gather = 0" \
		"work_mem = '512MB'" "maintenance_work_mem = '256MB'" \
		"weir.checkpoint_interval = '1h'" "weir.state_memory = '2GB'"
	psql -X -q -v ON_ERROR_STOP=1 -c 'CREATE EXTENSION pg_weir'
	# The load: Nexmark bids of four 8-byte columns, one hour of event time.
	as_user bash -c "'$work/src/test/tools/nexgen' --table bid --narrow --rows $N \
		--events $((N * 2)) --rate $((N / 3300 + 1)) \
		--start-ts '2026-01-01 00:00:00' >'$work/bids.csv'"
	sql -c "CREATE TABLE src (auction bigint, bidder bigint, price bigint, ts timestamptz NOT NULL);
		COPY src FROM '$work/bids.csv' (FORMAT csv);
		COPY src TO '$work/bids.bin' (FORMAT binary)"
	export WEIR_BENCH=$work bin PG_CONFIG
}

sql()
{
	psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"
}

columns='auction bigint, bidder bigint, price bigint, ts timestamptz NOT NULL'

# ours NAME [option...]: a stream; heap NAME: the same columns as a heap.
ours()
{
	local name=$1

	shift
	sql -c "CREATE TABLE $name ($columns)
		USING stream WITH (event_time = ts, watermark_delay = '5 seconds'${*:+, $*})"
}

heap()
{
	sql -c "CREATE TABLE $1 ($columns)"
}

# CPU time in ms of the whole server so far, processes that ended included.
cluster_cpu()
{
	{ cat /proc/[0-9]*/stat 2>/dev/null || true; } | awk -v pm="$(postmaster_pid "$data")" \
		-v hz="$(getconf CLK_TCK)" '
		{
			pid = $1
			sub(/^.*\) /, "")
			if (pid == pm)
				sum += $12 + $13 + $14 + $15
			else if ($2 == pm)
				sum += $12 + $13 + $14 + $15
		}
		END { printf "%.0f\n", sum * 1000 / hz }'
}

# CPU time in microseconds of the processes that run the named views so far.
worker_cpu()
{
	local pid list

	list=$(printf "'%s'::regclass," "$@")
	for pid in $(sql -c "SELECT DISTINCT worker_pid FROM weir.views
		WHERE view IN (${list%,}) AND worker_pid IS NOT NULL"); do
		cat "/proc/$pid/schedstat" 2>/dev/null || true
	done | awk '{ sum += $1 } END { printf "%.0f\n", sum / 1000 }'
}

# cpu_of COMMAND...: ms of server CPU that it takes, a CHECKPOINT included.
cpu_of()
{
	local before

	sql -c CHECKPOINT
	before=$(cluster_cpu)
	"$@" >/dev/null
	sql -c CHECKPOINT
	echo $(($(cluster_cpu) - before))
}

median()
{
	sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

calc()
{
	awk -v fmt="${2:-%.2f}" "BEGIN { printf fmt \"\\n\", ($1) }"
}

wait_for()
{
	[ "$(sql -c "SELECT weir.wait_for($1, '600 s')")" = t ] ||
		die "weir.wait_for($1) timed out"
}

# row MEASURE OURS HEAP RATIO TARGET
row()
{
	local IFS='|'

	printf '%s\n' "$*"
}

# compare MEASURE FORMAT UNIT DIVISOR TARGET OURS... -- HEAP...: medians,
# divided, and their ratio
compare()
{
	local measure=$1 unit=$2 divisor=$3 target=$4 o h list=()

	shift 4
	while [ "$1" != -- ]; do list+=("$1"); shift; done
	shift
	o=$(printf '%s\n' "${list[@]}" | median)
	h=$(printf '%s\n' "$@" | median)
	row "$measure" "$(calc "$o / $divisor" %.4g) $unit" "$(calc "$h / $divisor" %.4g) $unit" \
		"$(calc "$h > 0 ? $o / $h : 0" %.2fx)" "$target"
}

if [ -n "${WEIR_BENCH:-}" ]; then
	work=$WEIR_BENCH
	data=$work/data
	export PATH="$bin:$PATH"
elif [ -z "${BENCH_RUN:-}" ]; then
	bench_server
	data=$work/data
fi
