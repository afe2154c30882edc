# pg_weir - continuous stream processing inside PostgreSQL
#
#   make && make install     build for the server of PG_CONFIG, install into it
#   make DEBUG=1             with assertions and debug points
#   make installcheck        the three suites, against the installed extension
#
# Everything below needs nothing installed beforehand but make, touches no
# server of yours, and as root installs the Debian packages it needs:
#
#   make demo                a live stream in your terminal
#   make test                all suites on a private copy of the server
#   make test PG=17          the same in a chroot of Debian trixie (18: sid)
#   make test-upgrade        pg_upgrade 15 to 17 and 17 to 18 with live views
#   make test-release        before a release, some nine hours: valgrind and
#                            sanitizer, a soak, 1,000,000 random queries, 1,000
#                            kills under load (writes test/fault/REPORT.md), the
#                            tests with more faults, pg_upgrade
#   make bench               the table of doc/reference.md, measured here

ifneq ($(filter demo test test-% bench,$(MAKECMDGOALS)),)

.PHONY: demo test test-release test-upgrade bench
demo:
	@test/tools/demo
test:
	@$(if $(PG),test/tools/chroot-test $(PG),test/tools/run-tests)
test-release:
	@test/tools/release
test-upgrade:
	@for pair in 15-17 17-18; do \
	   test/tools/upgrade-test $$pair; rc=$$?; \
	   [ $$rc != 77 ] || echo "NOT RUN - pg_upgrade $$pair"; \
	   [ $$rc = 0 ] || [ $$rc = 77 ] || exit 1; \
	 done
test-%:
	@test/tools/chroot-test $*
bench:
	@test/bench/run

else

EXTENSION  = pg_weir
MODULE_big = $(EXTENSION)
OBJS       = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
DATA       = $(sort $(wildcard sql/$(EXTENSION)--*.sql))
PGFILEDESC = "pg_weir - stream tables and continuous views"
SHLIB_LINK = -llz4

ifdef DEBUG
PG_CPPFLAGS += -DWEIR_DEBUG -DUSE_ASSERT_CHECKING
else
# Folding a row is many small functions of several files: inlined, it takes
# a fifth less (for -O0 build with DEBUG=1).  Nobody replaces our functions by others of their names.
override PG_CFLAGS += -O3 -fno-semantic-interposition
ifeq ($(shell uname -s),Linux)
SHLIB_LINK += -Wl,-Bsymbolic-functions
endif
endif

# Bitcode would only let JIT inline our C functions; no query calls one per row.
override with_llvm = no

TEST_SERVER  = --temp-instance=tmp_check --no-locale --encoding=UTF8 --temp-config=test/$(EXTENSION).conf --load-extension=$(EXTENSION)

REGRESS      = $(filter-out $(EXTENSION)--%,$(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql))))
REGRESS_OPTS = $(TEST_SERVER)

# debug_*: stop somebody at a debug point, which only a debug build has
ISOLATION      = $(filter-out $(if $(DEBUG),,debug_%),$(patsubst test/isolation/specs/%.spec,%,$(sort $(wildcard test/isolation/specs/*.spec))))
ISOLATION_OPTS = --inputdir=test/isolation $(TEST_SERVER) $(if $(DEBUG),--temp-config=test/isolation/debug.conf)

TAP_TESTS   = 1
PROVE_TESTS = test/tap/*.pl

EXTRA_CLEAN = .build-flags test/tools/nexgen tmp_check log output_iso

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS knows no dependencies on headers, and none on flags.
$(OBJS): $(wildcard src/*.h) .build-flags
.build-flags: FORCE
	@echo '$(PG_CONFIG) $(VERSION) $(CC) $(CPPFLAGS) $(CFLAGS)' | cmp -s - $@ || \
	 echo '$(PG_CONFIG) $(VERSION) $(CC) $(CPPFLAGS) $(CFLAGS)' > $@
.PHONY: FORCE

installcheck: test/tools/nexgen

# The archive PGXN wants.
distversion = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(EXTENSION).control)
.PHONY: dist
dist:
	mkdir -p dist
	git archive --format zip --prefix=$(EXTENSION)-$(distversion)/ -o dist/$(EXTENSION)-$(distversion).zip HEAD

endif

test/tools/nexgen: test/tools/nexgen.c
	cc -O2 -Wall -Wextra -Wno-missing-field-initializers -o $@ $<
