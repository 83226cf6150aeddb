/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The few kernel types that the data plane touches, with CO-RE relocations, instead of a dump of all of them. */
#pragma once

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define __core __attribute__((preserve_access_index))

/* Excerpts: what lies between the fields is the kernel's. */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wpadded"

/* net_cookie: 5.14 (commit 3d368ab87cf6); unlike the inode number it is never given out twice while the host is up. */
struct net {
	__u64 net_cookie;
} __core;

struct nsproxy {
	struct net *net_ns;
} __core;

struct task_struct {
	struct nsproxy *nsproxy;
	int tgid;
} __core;

#pragma clang diagnostic pop

/* Registers at a uprobe, and in which of them a C function finds its arguments. PT_REGS_* of libbpf wants the user-space names. */
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs,
		eflags, rsp, ss;
};
#define argument_1(ctx) ((ctx)->rdi)
#define argument_2(ctx) ((ctx)->rsi)
#define argument_3(ctx) ((ctx)->rdx)
#define argument_4(ctx) ((ctx)->rcx)
#define argument_5(ctx) ((ctx)->r8)
#define argument_6(ctx) ((ctx)->r9)
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs { /* struct user_pt_regs of asm/ptrace.h: all that a program of this type is shown */
	__u64 regs[31], sp, pc, pstate;
};
#define argument_1(ctx) ((ctx)->regs[0])
#define argument_2(ctx) ((ctx)->regs[1])
#define argument_3(ctx) ((ctx)->regs[2])
#define argument_4(ctx) ((ctx)->regs[3])
#define argument_5(ctx) ((ctx)->regs[4])
#define argument_6(ctx) ((ctx)->regs[5])
#else
#error "no registers of this architecture here"
#endif

#ifndef memcpy
#define memcpy __builtin_memcpy
#define memset __builtin_memset
#endif

/* What the compiler has proven about a value it does not check again, and what it does not check the verifier does not
 * know: forget it. */
#define forget_range(value) asm volatile("" : "+r"(value))

#define KLOAK_LICENSE char LICENSE[] SEC("license") = "GPL"
