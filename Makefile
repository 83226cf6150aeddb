# SPDX-License-Identifier: Apache-2.0
# Run it through `npm run build`, which sets NODE_INCLUDE.
CLANG ?= clang-19
CC ?= gcc
ARCH := $(shell uname -m | sed 's/x86_64/x86/; s/aarch64/arm64/')
MULTIARCH := $(shell $(CC) -print-multiarch)
Q := $(if $(V),,@)

bpf_flags = -O2 -g -target bpf -mcpu=v3 -D__TARGET_ARCH_$(1) -I bpf -isystem /usr/include/$(MULTIARCH) \
	-Wall -Wextra -Wpadded -Werror
ADDON_FLAGS := -std=gnu11 -O2 -g -fPIC -fvisibility=hidden -D_GNU_SOURCE -DNAPI_VERSION=9 -I $(NODE_INCLUDE) \
	-Wall -Wextra -Werror -Wno-unused-parameter

BPF_SOURCES := $(shell find bpf -name '*.bpf.c')
TEST_SOURCES := $(shell find test -name '*.bpf.c' 2>/dev/null)
# Programs of their own; the rest of native/ is the addon.
PROGRAM_SOURCES := native/launch.c native/gate.c
ADDON_SOURCES := $(filter-out $(PROGRAM_SOURCES),$(wildcard native/*.c))

BPF_OBJECTS := $(BPF_SOURCES:bpf/%.c=build/bpf/%.o)
TEST_OBJECTS := $(foreach source,$(TEST_SOURCES),build/test/$(notdir $(source:.c=.o)))
ADDON_OBJECTS := $(ADDON_SOURCES:%.c=build/%.o)
PROGRAMS := $(PROGRAM_SOURCES:native/%.c=build/kloak-%)

# The agent for JVMs. Its library needs no JDK, its classes do, of 17 or later; without one they are left out.
JAVAC ?= $(shell javac --version 2>/dev/null | awk '$$2 + 0 < 17 { exit 1 }' && command -v javac)
JAVA_SOURCES := $(shell find java -name '*.java')
JAVA := build/java/libkloak-java.so $(if $(JAVAC),build/java/kloak-java.jar)

all: bpf test-objects addon programs java
	@:
bpf: $(BPF_OBJECTS)
arm64: $(BPF_SOURCES:bpf/%.c=build/arm64/%.o)
	@:
test-objects: $(TEST_OBJECTS)
addon: build/kloak.node
programs: $(PROGRAMS)
java: $(JAVA)
clean:
	rm -rf build/bpf build/arm64 build/test build/native build/java build/kloak.node $(PROGRAMS)
.PHONY: all bpf arm64 test-objects addon programs java clean

# Written beside and renamed, so that who loads it never sees half a file.
define compile_bpf
	@mkdir -p $(@D)
	@echo "  BPF  $<"
	$(Q)$(CLANG) $(call bpf_flags,$(1)) -MMD -MP -MF $@.d -MT $@ -c $< -o $@.new && mv $@.new $@
endef

build/bpf/%.o: bpf/%.c Makefile
	$(call compile_bpf,$(ARCH))

# Of another architecture than this one: nothing here runs them, but they must compile.
build/arm64/%.o: bpf/%.c Makefile
	$(call compile_bpf,arm64)

define test_rule
build/test/$(notdir $(1:.c=.o)): $(1) Makefile
	$$(call compile_bpf,$(ARCH))
endef
$(foreach source,$(TEST_SOURCES),$(eval $(call test_rule,$(source))))

build/native/%.o: native/%.c Makefile
	@mkdir -p $(@D)
	@echo "  CC   $<"
	$(Q)$(CC) $(ADDON_FLAGS) -MMD -MP -MF $@.d -MT $@ -c $< -o $@

build/kloak.node: $(ADDON_OBJECTS)
	@echo "  LD   $@"
	$(Q)$(CC) -shared -o $@.new $^ -lbpf -lpthread && mv $@.new $@

build/kloak-%: native/%.c Makefile
	@echo "  CC   $<"
	$(Q)$(CC) $(ADDON_FLAGS) -MMD -MP -MF $@.d -MT $@ $< -o $@.new && mv $@.new $@

build/java/libkloak-java.so: java/records.c Makefile
	@mkdir -p $(@D)
	@echo "  CC   $<"
	$(Q)$(CC) -shared -O2 -g -fPIC -fvisibility=hidden -fcf-protection=none -Wall -Wextra -Werror -Wno-unused-parameter \
		-o $@.new $< && mv $@.new $@

build/java/kloak-java.jar: $(JAVA_SOURCES) java/manifest Makefile
	@mkdir -p $(@D)
	@echo "  JAVA java"
	$(Q)rm -rf build/java/classes && \
		$(JAVAC) -source 17 -target 17 -Xlint:all,-options -Werror --patch-module java.base=java/base \
			-d build/java/classes $(filter java/base/%,$^) && \
		$(JAVAC) --release 17 -Xlint:all -Werror -d build/java/classes \
			$(filter-out %/Agent.java,$(filter java/agent/%,$^)) && \
		$(JAVAC) --release 8 -Xlint:all,-options,-classfile -Werror -d build/java/classes $(filter %/Agent.java,$^) && \
		$(JAVAC:javac=jar) --create --file $@.new --manifest java/manifest -C build/java/classes . && mv $@.new $@

-include $(wildcard $(BPF_OBJECTS:=.d) $(BPF_SOURCES:bpf/%.c=build/arm64/%.o.d) $(TEST_OBJECTS:=.d) $(ADDON_OBJECTS:=.d) $(PROGRAMS:=.d))
