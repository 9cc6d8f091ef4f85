# syncd — one non-recursive Makefile (GNU make).
#
#   make            the programs, in $(BUILD)
#   make unit       unit tests            make e2e       end-to-end tests (root, sshd)
#   make check      everything: installs what is missing, builds, runs every test, each for a bounded time
#   make check-full the same for hours: a kernel's sources, hundreds of kills, long campaigns
#   make demo       two daemons on two folders, live, in a temporary place
#   make install uninstall   PREFIX=/usr/local DESTDIR=
#   make check-man check-docs   the manual pages; what documents list is what there is
#   make asan clang tsan valgrind  builds of their own under $(BUILD), with the unit tests
#   make fuzz       FUZZ_SECONDS=60, each target    make fuzz-replay  their corpora
#   make differential  CASES=100000 SEED=     the decision table in C against its model
#   make sim-rules     RUNS=20000 SEED= JOBS=1   random histories under the rules
#   make sim-trees     NAMES=2 EVERY=1 SEED= JOBS=1   all pairs of trees of up to 4 nodes under the rules
#   make sim-sessions  RUNS=300 SEED=         random histories of real replicas and sessions
#   make sim           RUNS=1000 SEED= FEATURES=all   histories of whole replicas on simulated machines (tests/README.md)
#   make fast-sims     the programs of these four in $(BUILD)/fast, for long campaigns: compiled for what short ones did (gcc)
#   make crash         POINTS=1000 SEED= FS=ext4,xfs,btrfs   kills and power losses of the real programs (tests/README.md)
#   make defects    BUDGET=120 DEFECTS=       deliberate defects: which test finds each, after how long
#   make faults        EACH= BUDGET= SEED=    their calls and allocations fail, one at a time (tests/README.md)
#   make soak       MINUTES=60 SEED= EPOCH=40   three machines, their users, and all that may befall them (tests/README.md)
#   make bench      BENCH='--runs 3 --scale small WORK…'   side by side with its peers and the floors (tests/bench/README.md)
#   make bench-layers   each layer alone
#   V=1 shows the commands; BUILD=dir builds elsewhere; CC, CFLAGS and LDFLAGS are yours.

VERSION := 0.1.0
BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
CC = gcc
CFLAGS ?= -O2 -g
WARNINGS = -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wpointer-arith -Wvla
ifneq ($(NO_WERROR),1)
WARNINGS += -Werror
endif

PACKAGES = libssh2 libzstd libxxhash libcrypto libsodium libuv inih jansson libseccomp
# asked for late, so that `make check` can install them first
PKG_CFLAGS = $(shell pkg-config --cflags $(PACKAGES))
PKG_LIBS = $(shell pkg-config --libs $(PACKAGES)) -llmdb -lpthread
ALL_CFLAGS = -std=gnu17 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DSYNCD_VERSION='"$(VERSION)"' -I. \
	-fno-strict-aliasing $(WARNINGS) $(PKG_CFLAGS) $(CFLAGS)

# Layers, low to high. A file includes its own layer and lower ones only (tests/layers.sh).
base := bucket buf clock error file file_shared log pace pool random sync
merkle := chunk_tree chunker diff durable hash ignore index index_check index_nodes index_pack index_rows match path rebuild record scan scan_object scan_rows scan_tell store store_identity store_places tree version
tombstones := anew conflict decide knowledge line members observe observe_take places purge replica trash undo
transfer := apply apply_plan compare compare_match fetch fetch_content fetch_deferred fetch_nodes frame greet intent learn meeting message partial pieces place place_set push recover recover_staging reuse round serve session settle stage stage_reuse stage_verify transport
syncd := cmd_reconcile cmd_serve cmd_status commands config config_values control daemon daemon_control endpoint folder folder_errand \
	folder_session folder_status key_stream known_hosts link report schedule turns ui watch
programs := syncd syncctl syncd-ssh

layers := base merkle tombstones transfer syncd
sources := $(foreach l,$(layers),$(wildcard $(patsubst %,$l/%.c,$($l))))
archives := $(foreach l,syncd transfer tombstones merkle base,$(BUILD)/lib$l.a)
mains := $(wildcard $(patsubst %,syncd/main_%.c,$(subst -,_,$(programs))))
bins := $(patsubst %,$(BUILD)/bin/%,$(programs))
tests := $(wildcard tests/unit/*/test_*.c)
ifneq ($(findstring sanitize=thread,$(CFLAGS)),) # has no threads, and calls of libc that this one wants for itself
tests := $(filter-out tests/unit/sim/%,$(tests))
endif
test_bins := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(tests))
objects := $(patsubst %.c,$(BUILD)/%.o,$(sources) $(mains) $(tests))

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-5s %s\n'
endif

all: $(bins)

$(BUILD)/%.o: %.c
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

define archive
$(BUILD)/lib$1.a: $(patsubst %.c,$(BUILD)/%.o,$(wildcard $(patsubst %,$1/%.c,$($1))))
	$$(say) AR $$@
	@mkdir -p $$(@D)
	$$(Q)rm -f $$@ && $$(AR) rcsD $$@ $$^
endef
$(foreach l,$(layers),$(eval $(call archive,$l)))

$(BUILD)/bin/syncd-ssh: $(BUILD)/syncd/main_syncd_ssh.o $(archives)
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/bin/%: $(BUILD)/syncd/main_%.o $(archives)
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/unit/%: $(BUILD)/tests/unit/%.o $(archives)
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS) -lcmocka

# Tests of applying step in at each call of these: end the process, or change the path as a user.
crash_points := file_chmod_fd file_create file_exchange file_fsync file_link file_mkdir file_rename_noreplace \
	file_rename_replace file_rmdir file_set_mtime_fd file_symlink file_syncfs file_unlink index_commit
look_points := file_dir_open file_lease_read file_lease_release file_open_read file_open_seen file_stat_at file_stat_fd
$(BUILD)/unit/tombstones/test_observe: private LDFLAGS += -Wl,--wrap=file_syncfs,--wrap=file_fsync,--wrap=file_dir_next
$(BUILD)/unit/transfer/test_apply: private LDFLAGS += -Wl,--wrap=file_syncfs,--wrap=file_fsync
$(BUILD)/unit/transfer/test_recover: private LDFLAGS += $(foreach f,$(crash_points) file_open_seen file_readlink file_stat_at,-Wl,--wrap=$f)
$(BUILD)/unit/transfer/test_stage: private LDFLAGS += -Wl,--wrap=file_read_as,--wrap=file_lease_read
$(BUILD)/unit/transfer/test_place: private LDFLAGS += $(foreach f,$(crash_points) $(look_points),-Wl,--wrap=$f)

# The simulator's own base/file, base/clock and base/random, and some calls of libc; linked before the archives, which then
# are not asked for theirs. Its test has the kernel's base/file beside it, as real_file_….
sim_objects := $(patsubst %,$(BUILD)/tests/sim/%.o,clock digest fs fs_content fs_crash fs_file fs_libc fs_tree fs_user)
real_objects := $(patsubst %,$(BUILD)/real/%.o,base/file base/file_shared tests/unit/sim/fs_ops)
objects += $(sim_objects) $(real_objects) $(BUILD)/tests/unit/sim/fs_ops.o

$(BUILD)/real/%.o: %.c
	$(say) CC "$< (real)"
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -include tests/unit/sim/real_names.h -MMD -MP -c -o $@ $<

$(BUILD)/unit/sim/test_fs: $(real_objects) $(BUILD)/tests/unit/sim/fs_ops.o
$(BUILD)/unit/sim/%: $(BUILD)/tests/unit/sim/%.o $(sim_objects) $(archives)
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS) -lcmocka

unit-bins: $(test_bins)

# Runs every unit test program, also after a failure, TEST_JOBS at a time; fails if one failed.
TEST_JOBS ?= $(shell nproc)
unit: $(test_bins)
	@printf '%s\n' $(test_bins:$(BUILD)/unit/%=%) | TEST_WRAPPER='$(TEST_WRAPPER)' xargs -P $(TEST_JOBS) -n 1 tests/unit/run.sh $(BUILD)/unit

# A small quarantine: tests fork often, and each child gets a copy of the page tables.
asan asan-bins:
	@ASAN_OPTIONS=$${ASAN_OPTIONS-quarantine_size_mb=16} $(MAKE) --no-print-directory BUILD=$(BUILD)/asan CFLAGS='-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer' all $(@:asan%=unit%)

clang:
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/clang CC=clang all unit

tsan:
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/tsan CFLAGS='-O1 -g -fsanitize=thread' all unit

# valgrind may not know openat2(2): see tests/unit/openat2.c. Leaks are found by `make asan`: here, what forked children of tests
# have when they leave at once would count.
$(BUILD)/openat2.so: tests/unit/openat2.c
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -fPIC -shared $(LDFLAGS) -o $@ $<

valgrind: $(BUILD)/openat2.so
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/valgrind TEST_WRAPPER='LD_PRELOAD=$(abspath $(BUILD))/openat2.so \
		valgrind -q --error-exitcode=9' unit

# Fuzzing: tests/fuzz/fuzz_<name>.c is a target, tests/fuzz/corpus/<name>/ its corpus. `make fuzz` needs clang; what it
# finds is left in $(BUILD)/fuzz. `make fuzz-replay` runs the corpora with any compiler.
FUZZ_SECONDS ?= 60
fuzz_names := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
replay_bins := $(patsubst %,$(BUILD)/replay/%,$(fuzz_names))
fuzzer_bins := $(patsubst %,$(BUILD)/fuzzer/%,$(fuzz_names))
objects += $(patsubst %,$(BUILD)/tests/fuzz/fuzz_%.o,$(fuzz_names)) $(BUILD)/tests/fuzz/replay.o

$(BUILD)/replay/%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/fuzz/replay.o $(archives)
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/fuzzer/%: $(BUILD)/tests/fuzz/fuzz_%.o $(archives)
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(PKG_LIBS)

fuzz-replay: $(replay_bins)
	@for n in $(fuzz_names); do printf '%s: ' fuzz_$$n; $(TEST_WRAPPER) $(BUILD)/replay/$$n tests/fuzz/corpus/$$n/* || exit 1; done

fuzz-run: $(fuzzer_bins)
	@for n in $(fuzz_names); do mkdir -p $(BUILD)/found/$$n && $(BUILD)/fuzzer/$$n -max_total_time=$(FUZZ_SECONDS) \
		-timeout=10 -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix=$(BUILD)/found/$$n- \
		$(BUILD)/found/$$n tests/fuzz/corpus/$$n || exit 1; done

fuzz:
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/fuzz CC=clang CFLAGS='-O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer' fuzz-run

# The decision table in C against its executable model in Python, on random cases.
CASES ?= 100000
rule_archives := $(foreach l,tombstones merkle base,$(BUILD)/lib$l.a)
objects += $(BUILD)/tests/unit/tombstones/decide_driver.o

$(BUILD)/decide-driver: $(BUILD)/tests/unit/tombstones/decide_driver.o $(rule_archives)
	$(say) LD $@
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

differential: $(BUILD)/decide-driver
	@python3 -B tests/unit/tombstones/model/decision_table.py $< $(CASES) $(SEED)

# Random histories of replicas in memory under the rules, judged against ground truth. JOBS: processes.
sim-rules sim-trees: JOBS ?= 1
sim-rules: RUNS ?= 20000
rules_objects := $(patsubst %,$(BUILD)/tests/sim/%.o,rules_world jobs heap locks)
objects += $(rules_objects) $(BUILD)/tests/sim/rules.o

$(BUILD)/sim-rules: $(BUILD)/tests/sim/rules.o $(rules_objects) $(rule_archives)
	$(say) LD $@
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

# Histories that went wrong once come first.
rule_seeds := 61487 1003081 2168643 5850906 31289338 1795237241

sim-rules: $(BUILD)/sim-rules
	@for s in $(rule_seeds); do $< 3 $$s >$(BUILD)/sim-rules.log || { cat $(BUILD)/sim-rules.log; exit 1; }; done
	@$< -j $(JOBS) $(RUNS) $(SEED)

# All pairs of small trees under the rules. NAMES: in a directory, up to 4; EVERY: one of so many only.
sim-trees: NAMES ?= 2
sim-trees: EVERY ?= 1
objects += $(BUILD)/tests/sim/trees.o

$(BUILD)/sim-trees: $(BUILD)/tests/sim/trees.o $(rules_objects) $(rule_archives)
	$(say) LD $@
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

sim-trees: $(BUILD)/sim-trees
	@$< -j $(JOBS) -n $(NAMES) -e $(EVERY) $(if $(SEED),-s $(SEED))

# Random histories of replicas on real disks: scans, sessions (cut anywhere), applies, restarts, purges.
sim-sessions: RUNS ?= 300
objects += $(BUILD)/tests/sim/histories.o

$(BUILD)/sim-sessions: $(BUILD)/tests/sim/histories.o $(archives)
	$(say) LD $@
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

# Histories that went wrong once come first.
session_seeds := 10392 12625

sim-sessions: $(BUILD)/sim-sessions
	@for s in $(session_seeds); do $< 1 $$s >$(BUILD)/sim-sessions.log 2>&1 || { cat $(BUILD)/sim-sessions.log; exit 1; }; done
	@$< $(RUNS) $(SEED)

# Whole replicas on simulated machines: crashes, faults, cuts, users at any call. What it prints says how to see a history again.
sim: RUNS ?= 1000
sim: FEATURES ?= all
engine_objects := $(patsubst %,$(BUILD)/tests/sim/%.o,engine engine_history engine_judge engine_oracle engine_site engine_user engine_wire heap locks)
objects += $(engine_objects)

# What it calls most is linked in: calls through tables were a twentieth of its time.
$(BUILD)/sim: $(engine_objects) $(BUILD)/tests/sim/jobs.o $(sim_objects) $(archives)
	$(say) LD $@
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ -Wl,-Bstatic -llmdb -lzstd -lxxhash -lsodium -Wl,-Bdynamic -lcrypto -lpthread

# Histories that went wrong once come first: what may happen in them, and the seed.
# With what came later these would be other histories.
sim_older := all,-STORE,-ONE_WAY,-HOLD,-SINGLE,-LOOK,-LIE,-CHASE,-BLACKOUT
sim_seeds := CRASH,DISKS/508 CRASH,DISKS/1206 CRASH,DISKS/1367 CRASH,DISKS/2180 $(sim_older)/6382 $(sim_older)/10293 \
	$(sim_older)/103310 $(sim_older)/120122 $(sim_older)/129621 $(sim_older)/142794 $(sim_older)/331379 \
	$(sim_older)/351298 $(sim_older)/473231 $(sim_older)/551874 CUT,STALL,MEDDLE,AWAY,CLOCK,CRASH,RESTORE,DISKS,SINGLE/12590 \
	CLOCK,CRASH,HOLD,LIVE,LOOK,PAUSE,RESTART/969589 STALL,MEDDLE,OPEN,KILL,FAULT/1035754 \
	CUT,MEDDLE,RESTART,PURGE,CLOCK,OPEN,CRASH,CLONE,ONE_WAY,HOLD/1305724 \
	CUT,AWAY,CLOCK,OPEN,CRASH,KILL,UNMOUNT,RESTORE,CLONE,DISKS,SINGLE/2645481 CUT,LIVE,STALL,PAUSE,PURGE,FAULT,RESTORE,DISKS,HOLD/2867724 \
	PAUSE,MEDDLE,PURGE,AWAY,OPEN,CRASH,KILL,UNMOUNT,RESTORE,CLONE,SINGLE,LOOK/3125725 MEDDLE,AWAY,CLOCK,FAULT,RESTORE,LOOK/3227081 \
	STALL,FAULT/3626343 PURGE,AWAY,CLOCK,FAULT/4852089 \
	LIVE,PAUSE,CRASH,FAULT,UNMOUNT,HOLD/5298250 CUT,RESTART,OPEN,KILL,HOLD/5418627 \
	PAUSE,PURGE,AWAY,CLOCK,OPEN,CRASH,FAULT,RESTORE,CLONE,STORE,SINGLE/5119995 STALL,MEDDLE,CLONE,HOLD/5225349 \
	CUT,MEDDLE,CRASH,RESTORE,CLONE/5503635 CRASH,FAULT,ONE_WAY,EXACT/9099122

sim: $(BUILD)/sim
	@for s in $(sim_seeds); do timeout 60 $< 1 $${s#*/} $${s%/*} >$(BUILD)/sim.log 2>&1 || \
		{ cat $(BUILD)/sim.log; echo "again: $< 1 $${s#*/} $${s%/*}"; exit 1; }; done
	@COMMIT=$$(git rev-parse --short HEAD 2>/dev/null) $< $(RUNS) '$(SEED)' $(FEATURES)

# For long campaigns: a short one is watched, and all is compiled again for what it did. One history of `sim` is one process.
fast_sims := $(patsubst %,$(BUILD)/fast/%,sim sim-rules sim-trees)
fast_make = $(MAKE) --no-print-directory BUILD=$(BUILD)/fast NO_WERROR=1
.PHONY: fast-sims
fast-sims:
	@rm -rf $(BUILD)/fast
	+@$(fast_make) CFLAGS='-O2 -g -w -fprofile-generate' $(fast_sims)
	@for s in $$(seq 60); do $(BUILD)/fast/sim 1 $$s; done >/dev/null 2>&1
	@$(BUILD)/fast/sim-rules 3000 1 >/dev/null
	@$(BUILD)/fast/sim-trees -n 2 -e 300 -s 1 >/dev/null
	@find $(BUILD)/fast -type f ! -name '*.gcda' -delete
	+@$(fast_make) AR=gcc-ar CFLAGS='-O2 -g -w -flto=auto -fprofile-use' $(fast_sims)

# The real programs on real file systems: killed at their calls, and without power. Root, loop devices; tests/README.md.
crash: POINTS ?= 1000
crash_tools := $(BUILD)/crash/step $(BUILD)/crash/record

$(BUILD)/crash/%: tests/crash/%.c
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $<

.PHONY: crash
crash: $(bins) $(crash_tools)
	@python3 -B tests/crash/crash.py $(BUILD)/bin $(BUILD)/crash --points $(POINTS) $(if $(SEED),--seed $(SEED)) \
		$(if $(FS),--fs $(FS)) $(if $(MODES),--modes $(MODES)) $(if $(JOBS),--jobs $(JOBS)) $(if $(ONLY),--only $(ONLY))

# Deliberate defects, built in one by one: do the campaigns find them? BUDGET: seconds for each of them; DEFECTS: names, or `fast`.
DEFECTS ?=
defects: all unit-bins $(BUILD)/sim $(patsubst %,$(BUILD)/sim-%,rules trees sessions)
	@MAKE='$(MAKE)' BUILD='$(BUILD)' CFLAGS='$(CFLAGS)' tests/defects.sh $(DEFECTS)

# Their calls of the file system and their allocations fail, one at a time. EACH: so many errnos of each place; BUDGET: seconds;
# DEPTH: how many functions make a place. Both names of each call, so each under its own.
$(BUILD)/crash/fault.so: tests/crash/fault.c
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -U_FILE_OFFSET_BITS -fPIC -shared $(LDFLAGS) -o $@ $<
.PHONY: faults
faults: $(bins) $(crash_tools) $(BUILD)/crash/fault.so
	@python3 -B tests/crash/faults.py $(BUILD)/bin $(BUILD)/crash $(if $(SEED),--seed $(SEED)) $(if $(EACH),--each $(EACH)) $(if $(EVERY),--every $(EVERY)) \
		$(if $(DEPTH),--depth $(DEPTH)) $(if $(BUDGET),--budget $(BUDGET)) $(if $(WHAT),--what $(WHAT)) $(if $(JOBS),--jobs $(JOBS)) $(if $(ONLY),--only $(ONLY)) $(if $(SKIP),--skip $(SKIP)) $(if $(AGAIN),--again $(AGAIN))

# Three machines in namespaces, with sshds, relays in between, and a nemesis.
MINUTES ?= 60
$(BUILD)/soak/clock.so: tests/soak/clock.c
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -fPIC -shared $(LDFLAGS) -o $@ $<
.PHONY: soak
soak: $(bins) $(BUILD)/soak/clock.so
	@python3 -B tests/soak/soak.py $(BUILD)/bin $(BUILD)/soak/clock.so --minutes $(MINUTES) --diary $(BUILD)/soak/diary \
		$(if $(SEED),--seed $(SEED)) $(if $(EPOCH),--epoch $(EPOCH)) $(if $(HARM),--harm $(HARM))

# All tests; tests/check.sh says how each step went and counts. The packages come first, as the rest asks pkg-config.
check check-full: install-test-deps
	@MAKE='$(MAKE)' BUILD='$(BUILD)' tests/check.sh $(@:check-%=%)

e2e:
	@MAKE='$(MAKE)' BUILD='$(BUILD)' tests/check.sh e2e

# Each layer alone is a program of its own; bench-layers runs it only.
BENCH ?=
objects += $(BUILD)/tests/bench/layers.o
$(BUILD)/layers: $(BUILD)/tests/bench/layers.o $(archives)
	$(say) LD $@
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

bench bench-layers: all $(BUILD)/layers
	@python3 -B tests/bench/bench.py '$(BUILD)/bin' --out '$(BUILD)/$@.json' $(BENCH) $(subst -,,$(@:bench%=%))

install-test-deps:
	@packaging/install-deps.sh --test

demo:
	@packaging/install-deps.sh
	@$(MAKE) --no-print-directory all
	@packaging/demo.sh '$(BUILD)/bin'

# Manual pages: all that mandoc finds is an error, but for pages that are not installed here.
check-man:
	@faults=$$(for f in packaging/man/*; do mandoc -T lint $$f 2>&1; done | \
		grep -v 'referenced manual not found\|outdated mandoc.db'); \
		test -z "$$faults" || { printf '%s\n' "$$faults"; exit 1; }

check-docs:
	@tests/check_docs.sh

# $(PREFIX) is written into the unit and into the page that names the example.
at := $(DESTDIR)$(PREFIX)
installed := $(programs:%=bin/%) share/doc/syncd/syncd.conf.example lib/systemd/system/syncd.service \
	share/bash-completion/completions/syncctl \
	$(foreach p,$(notdir $(wildcard packaging/man/*)),share/man/man$(lastword $(subst ., ,$p))/$p)
with_prefix = sed 's|@PREFIX@|$(PREFIX)|; s|/usr/share/|$(PREFIX)/share/|'

install: all
	@set -e; umask 022; \
	for f in $(installed); do mkdir -p "$(at)/$${f%/*}"; done; \
	for p in $(programs); do install -m 755 $(BUILD)/bin/$$p "$(at)/bin/$$p"; done; \
	for f in packaging/man/*; do $(with_prefix) $$f >"$(at)/share/man/man$${f##*.}/$${f##*/}"; done; \
	$(with_prefix) packaging/systemd/syncd.service.in >"$(at)/lib/systemd/system/syncd.service"; \
	install -m 644 syncd.conf.example "$(at)/share/doc/syncd/syncd.conf.example"; \
	install -m 644 packaging/bash-completion/syncctl "$(at)/share/bash-completion/completions/syncctl"

uninstall:
	@for f in $(installed); do rm -f "$(at)/$$f"; done
	@rmdir "$(at)/share/doc/syncd" 2>/dev/null || :

.PHONY: bench bench-layers check-man check-docs install uninstall

clean:
	rm -rf $(BUILD)

-include $(objects:.o=.d)

.PHONY: check check-full e2e install-test-deps demo asan-bins
.PHONY: all unit defects differential sim sim-rules sim-trees sim-sessions unit-bins asan clang tsan valgrind fuzz fuzz-run fuzz-replay clean
.SECONDARY:
