// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The wire side with a mistake that is easily made: it patches what leaves for the first time, and lets pass as it is what
 * TCP sends again. Whoever says that nothing leaves in two versions must find it.
 */
#include "core.h"
#include "wire/apply.h"

/* In flow_segment, which knows how much of the segment it has seen before. */
#define apply_all(skb, flow, walk) (seen > 0 || apply_all(skb, flow, walk))

#include "wire.bpf.c"
