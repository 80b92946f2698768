# yester: build with GNU make. Everything that a build writes is below $(BUILD).
#
#   make                     build/yester
#   make V=1                 show the commands
#   make check               unit tests; check-san: the same under address and undefined sanitizers
#   make test [T="NAME..."]  everything that CI runs (installs the test packages when root)
#   make bench [ARGS="--rounds N --scale X ..."]   yester beside other filesystems (tests/bench/bench.py --help), as root: build/bench/table.md
#   make simulate [ARGS="VERSIONS FILES"]   the catalogue after a long history: sizes and times
#   make lint                shellcheck, mandoc, rules of the text and of who includes what
#   make fuzz                build/fuzz/fuzz_*: each takes files and mutates them (tests/fuzz/replay.c)
#   make install [DESTDIR=] [PREFIX=/usr/local] [SBINDIR=/sbin]; uninstall; clean; distclean (build/deps too)
#
#   WERROR=1                 warnings are errors
#   SAN=address,undefined    builds into build/san-address-undefined (or SAN=thread)
#   FAILPOINTS=1             builds into build/failpoints with the failpoints of cache/base/failpoint.h
#   FUSE=system              with the distribution's libfuse, into build/system-libfuse (else with that in build/deps, which scripts/setup makes)
#   BUILD=DIR                builds there instead
#
# Each folder is compiled with only the include paths that it is allowed (fs -> cache <- sync), so that a wrong
# include does not build; only fs/main.c, which wires the two, sees sync.

VERSION := 0.1.0

CC ?= cc
CXX ?= c++
PKG_CONFIG ?= pkg-config
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
SBINDIR ?= /sbin # where mount(8) looks for its helpers, whatever the prefix
SBINDIR := $(strip $(SBINDIR))

comma := ,
empty :=
space := $(empty) $(empty)
VARIANT := $(subst $(space),-,$(strip $(if $(SAN),san-$(subst $(comma),-,$(SAN))) $(if $(FAILPOINTS),failpoints) \
$(if $(filter system,$(FUSE)),system-libfuse)))
BUILD := build$(if $(VARIANT),/$(VARIANT))
OBJ := $(BUILD)/obj

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $(2))

# ---- flags

# The user's CFLAGS, CPPFLAGS, LDFLAGS come last and win.
BASE_CFLAGS := -std=gnu17 -O2 -g -Wall -Wextra -Wshadow -Wstrict-prototypes -fPIE -fstack-protector-strong -pthread
BASE_CPPFLAGS := -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DYESTER_VERSION='"$(VERSION)"'
BASE_LDFLAGS := -pie -pthread -Wl,-z,relro,-z,now
ifdef SAN
BASE_CFLAGS += -fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer
BASE_LDFLAGS += -fsanitize=$(SAN)
else
# The sanitizers check more than this, and don't see through it.
BASE_CPPFLAGS += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3
endif
ifdef FAILPOINTS
BASE_CPPFLAGS += -DYESTER_FAILPOINTS
endif

INC_CACHE := -Icache -Icache/base
INC_SYNC := $(INC_CACHE) -Isync
INC_FS := $(INC_CACHE) -Ifs

# libfuse: scripts/libfuse puts one into build/deps where the system's is too old.
DEPS := build/deps
fuse_config := $(if $(filter-out system,$(FUSE)),$(error FUSE is $(FUSE); it can be system, or nothing))$(strip \
$(if $(FUSE),,$(if $(wildcard $(DEPS)/lib/libfuse3.a),PKG_CONFIG_PATH=$(abspath $(DEPS))/lib/pkgconfig))) $(PKG_CONFIG)

# Nothing is asked of pkg-config for goals that don't compile: `make test` must work before scripts/setup has run.
NO_COMPILE := clean distclean test lint uninstall
ifneq ($(filter-out $(NO_COMPILE),$(or $(MAKECMDGOALS),all)),)
need = $(if $(shell $(fuse_config) --exists $(1) && echo y),,$(error cannot find $(1) with $(PKG_CONFIG); \
run scripts/setup as root))
PACKAGES := fuse3 libcurl openssl sqlite3 libzstd
$(foreach package,$(PACKAGES),$(call need,$(package)))
CACHE_CFLAGS := $(shell $(PKG_CONFIG) --cflags openssl sqlite3)
SYNC_CFLAGS := $(shell $(PKG_CONFIG) --cflags libcurl openssl sqlite3 libzstd)
FUSE_CFLAGS := $(shell $(fuse_config) --cflags fuse3) -DFUSE_USE_VERSION=312
# A new libfuse as an archive, and its own dependencies the same way where they have one.
fuse_libdir := $(shell $(fuse_config) --variable=libdir fuse3)
FUSE_ARCHIVE := $(if $(FUSE),,$(if $(shell $(fuse_config) --atleast-version=3.18.3 fuse3 && echo y),$(wildcard $(fuse_libdir)/libfuse3.a)))
archive = $(if $(filter /%,$(shell $(CC) -print-file-name=lib$(1).a)),-l:lib$(1).a,-l$(1))
FUSE_LIBS := $(foreach lib,$(shell $(fuse_config) $(if $(FUSE_ARCHIVE),--static) --libs fuse3),$(strip \
$(if $(filter -lfuse3,$(lib)),$(if $(FUSE_ARCHIVE),-l:libfuse3.a,$(lib)),$(strip \
$(if $(filter -luring -lnuma,$(lib)),$(call archive,$(lib:-l%=%)),$(lib))))))
CORE_LIBS := $(shell $(PKG_CONFIG) --libs libcurl openssl sqlite3 libzstd)
endif

compile = $(Q)$(CC) $(BASE_CPPFLAGS) $(1) $(CPPFLAGS) $(BASE_CFLAGS) $(if $(WERROR),-Werror) $(CFLAGS) -MMD -MP -c -o $@ $<
link = $(Q)$(CC) $(BASE_CFLAGS) $(CFLAGS) $(BASE_LDFLAGS) $(LDFLAGS) -o $@ $(1)

# ---- sources

CACHE_SRC := $(sort $(wildcard cache/*.c cache/base/*.c))
SYNC_SRC := $(sort $(wildcard sync/*.c))
FS_SRC := $(sort $(wildcard fs/*.c))
EXERCISE_SRC := $(sort $(wildcard tests/lib/*_exercise.c tests/lib/*_stress.c))
TESTLIB_SRC := $(filter-out $(EXERCISE_SRC),$(sort $(wildcard tests/lib/*.c)))
UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
objects = $(patsubst %.c,$(OBJ)/%.o,$(1))

# Archives rather than object lists: a unit test may replace a module with its own, and links what it uses.
CACHE_LIB := $(BUILD)/libcache.a
SYNC_LIB := $(BUILD)/libsync.a
FS_LIB := $(BUILD)/libfs.a
TEST_LIB := $(BUILD)/libtest.a
UNIT_BIN := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT_SRC))
EXERCISE_BIN := $(patsubst tests/lib/%.c,$(BUILD)/lib/%,$(EXERCISE_SRC))
FUZZ_BIN := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(FUZZ_SRC))
PROGRAM := $(if $(filter fs/main.c,$(FS_SRC)),$(BUILD)/yester)

.PHONY: all unit fuzz check check-san test bench simulate lint install uninstall clean distclean
.SECONDARY:
.DELETE_ON_ERROR:

all: $(PROGRAM) $(if $(FAILPOINTS),$(EXERCISE_BIN)) $(if $(PROGRAM),,$(call objects,$(CACHE_SRC) $(SYNC_SRC) $(FS_SRC)))

# ---- compile and link

# Changed flags compile everything again (WERROR alone does not).
FLAGS := $(CC) $(BASE_CPPFLAGS) $(CPPFLAGS) $(BASE_CFLAGS) $(CFLAGS) $(BASE_LDFLAGS) $(LDFLAGS) $(FUSE_CFLAGS) $(FUSE_LIBS)
STAMP := $(OBJ)/flags
ifneq ($(filter-out $(NO_COMPILE),$(or $(MAKECMDGOALS),all)),)
$(shell mkdir -p $(OBJ))
ifneq ($(strip $(FLAGS)),$(strip $(file <$(STAMP))))
$(file >$(STAMP),$(strip $(FLAGS)))
endif
# A source that comes or goes makes the archives and the program anew.
SOURCES := $(strip $(CACHE_SRC) $(SYNC_SRC) $(FS_SRC) $(TESTLIB_SRC))
LIST := $(OBJ)/sources
ifneq ($(SOURCES),$(strip $(file <$(LIST))))
$(file >$(LIST),$(SOURCES))
endif
endif

$(OBJ)/cache/%.o: cache/%.c $(STAMP)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(call compile,$(INC_CACHE) $(CACHE_CFLAGS))

$(OBJ)/sync/%.o: sync/%.c $(STAMP)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(call compile,$(INC_SYNC) $(SYNC_CFLAGS))

$(OBJ)/fs/main.o: INC_FS += -Isync
$(OBJ)/fs/%.o: fs/%.c $(STAMP)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(call compile,$(INC_FS) $(FUSE_CFLAGS))

$(OBJ)/tests/unit/test_fs_%.o: INC_TEST_FS = -Ifs $(FUSE_CFLAGS)
$(OBJ)/tests/%.o: tests/%.c $(STAMP)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(call compile,$(INC_SYNC) $(INC_TEST_FS) -Itests/lib $(CACHE_CFLAGS) $(SYNC_CFLAGS))

$(CACHE_LIB): $(call objects,$(CACHE_SRC)) $(LIST)
$(SYNC_LIB): $(call objects,$(SYNC_SRC)) $(LIST)
$(FS_LIB): $(call objects,$(filter-out fs/main.c,$(FS_SRC))) $(LIST)
$(TEST_LIB): $(call objects,$(TESTLIB_SRC)) $(LIST)
$(BUILD)/lib%.a:
	$(call say,AR,$@)
	@rm -f $@
	$(Q)$(AR) rcs $@ $(filter %.o,$^)

$(BUILD)/yester: $(call objects,$(FS_SRC) $(SYNC_SRC) $(CACHE_SRC)) $(LIST)
	$(call say,LINK,$@)
	$(call link,$(call objects,$(FS_SRC) $(SYNC_SRC) $(CACHE_SRC)) $(FUSE_LIBS) $(CORE_LIBS))
	$(if $(FUSE)$(FUSE_ARCHIVE),,@echo "built without $$(scripts/libfuse --missing); scripts/setup builds a newer one")

$(BUILD)/unit/test_fs_%: $(OBJ)/tests/unit/test_fs_%.o $(TEST_LIB) $(FS_LIB) $(SYNC_LIB) $(CACHE_LIB)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(call link,$^ $(FUSE_LIBS) $(CORE_LIBS) -lcmocka)

$(BUILD)/unit/test_%: $(OBJ)/tests/unit/test_%.o $(TEST_LIB) $(SYNC_LIB) $(CACHE_LIB)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(call link,$^ $(CORE_LIBS) -lcmocka)

# A program that scripts drive, to reach one module without the rest of yester.
$(BUILD)/lib/%_exercise: $(OBJ)/tests/lib/%_exercise.o $(SYNC_LIB) $(CACHE_LIB)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(call link,$^ $(CORE_LIBS))

# One that works on files through the kernel only.
$(BUILD)/lib/%_stress: $(OBJ)/tests/lib/%_stress.o $(TEST_LIB)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(call link,$^)

# A fuzz target is one file with LLVMFuzzerTestOneInput; replay.c gives it a main that feeds it files.
$(BUILD)/fuzz/fuzz_%: $(OBJ)/tests/fuzz/fuzz_%.o $(OBJ)/tests/fuzz/replay.o $(TEST_LIB) $(SYNC_LIB) $(CACHE_LIB)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(call link,$^ $(CORE_LIBS))

# ---- tests

unit: $(UNIT_BIN) $(EXERCISE_BIN)
fuzz: $(FUZZ_BIN)

check: unit
	@tests/run --unit $(BUILD)

check-san:
	@$(MAKE) --no-print-directory SAN=address,undefined check

test:
	@tests/run $(T)

simulate: $(BUILD)/bench/simulate_catalogue
	$< $(ARGS)

# What it compares with is there after scripts/setup --bench; else the table says that it is missing.
HP_SOURCE := $(wildcard $(DEPS)/example/passthrough_hp.cc)
bench: all $(BUILD)/bench/io_row $(if $(HP_SOURCE),$(BUILD)/bench/passthrough_hp)
	@tests/bench/bench.py $(ARGS)

# As libfuse's own build makes it: optimised, with these of its features.
$(BUILD)/bench/passthrough_hp: $(HP_SOURCE) $(STAMP)
	$(call say,CXX,$@)
	@mkdir -p $(@D)
	$(Q)$(CXX) -std=c++17 -O2 -pthread $(foreach have,SETXATTR UTIMENSAT FALLOCATE POSIX_FALLOCATE,-DHAVE_$(have)) -include sys/xattr.h \
		$(FUSE_CFLAGS) -UFUSE_USE_VERSION -o $@ $< $(FUSE_LIBS)

$(BUILD)/bench/%: $(OBJ)/tests/bench/%.o $(CACHE_LIB)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(call link,$^ $(CORE_LIBS))

lint:
	@scripts/lint

# ---- install

COMPLETIONS := $(PREFIX)/share/bash-completion/completions
MAN_PAGES := $(sort $(wildcard man/*.[1-9]))
mandir_of = $(DESTDIR)$(MANDIR)/man$(patsubst .%,%,$(suffix $(1)))

install: all
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(SBINDIR)
	install -m 0755 $(BUILD)/yester $(DESTDIR)$(BINDIR)/yester
	install -m 0755 scripts/mount.yester $(DESTDIR)$(SBINDIR)/mount.yester
	ln -sf mount.yester $(DESTDIR)$(SBINDIR)/mount.fuse.yester
	install -d $(DESTDIR)$(COMPLETIONS) $(DESTDIR)$(PREFIX)/share/doc/yester
	install -m 0644 scripts/completions/yester.bash $(DESTDIR)$(COMPLETIONS)/yester
	install -m 0644 scripts/yester.conf.sample $(DESTDIR)$(PREFIX)/share/doc/yester/yester.conf.sample
	$(foreach page,$(MAN_PAGES),install -d $(call mandir_of,$(page)) && \
	install -m 0644 $(page) $(call mandir_of,$(page))/ && )true

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/yester $(DESTDIR)$(SBINDIR)/mount.yester $(DESTDIR)$(SBINDIR)/mount.fuse.yester
	rm -f $(DESTDIR)$(COMPLETIONS)/yester $(DESTDIR)$(PREFIX)/share/doc/yester/yester.conf.sample
	rm -f $(foreach page,$(MAN_PAGES),$(call mandir_of,$(page))/$(notdir $(page)))

# Not what was fetched over the network.
clean:
	$(if $(wildcard $(BUILD)),find $(BUILD) -mindepth 1 -maxdepth 1 ! -path $(DEPS) -exec rm -rf {} +)

distclean:
	rm -rf build

-include $(patsubst %.c,$(OBJ)/%.d,$(CACHE_SRC) $(SYNC_SRC) $(FS_SRC) $(TESTLIB_SRC) $(UNIT_SRC) $(FUZZ_SRC) \
$(EXERCISE_SRC) tests/fuzz/replay.c $(wildcard tests/bench/*.c))
