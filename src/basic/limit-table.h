/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The table of limits.def, and the sentences that are told beyond them, which name what was expected. */

#include "basic/fault.h"
#include "basic/macro.h"

typedef enum LimitKind {
        LIMIT_KIND_NUMBER,
        LIMIT_KIND_SIZE, /* bytes */
        LIMIT_KIND_TIME, /* microseconds */
        LIMIT_KIND_TEXT, /* bytes of it */
        LIMIT_KIND_LIST, /* entries */
        _LIMIT_KIND_MAX,
} LimitKind;

/* See limits.def. A max, item or all of 0 is no bound; a unit of 0 is 1. */
typedef struct Limit {
        LimitKind kind;
        uint64_t min, max, step, item, all, unit;
        bool zero;
        const char *what, *route, *member, *method, *option, *verb, *answer;
} Limit;

typedef enum LimitId {
#define LIMIT(id, ...) LIMIT_##id,
#include "basic/limits.def"
#undef LIMIT
        _LIMIT_MAX,
} LimitId;

extern const Limit limit_table[_LIMIT_MAX];

/* name: what the caller calls it, e.g. "vcpus". All: 0, or -EINVAL with FAULT_INVALID_ARGS. */

/* A number in its base unit; l->unit is not looked at. */
int limit_check_number(const Limit *l, const char *name, uint64_t value, Fault *reterr);
/* The refusal alone, of a value in l->unit: its text, or NULL for what is no integer. */
int limit_refuse_number(const Limit *l, const char *name, const char *given, Fault *reterr);
/* n: bytes of a text. */
int limit_check_text(const Limit *l, const char *name, size_t n, Fault *reterr);
/* n: entries of a list. */
int limit_check_count(const Limit *l, const char *name, size_t n, Fault *reterr);
/* n: bytes of one entry; *total counts it and one byte more. */
int limit_check_entry(const Limit *l, const char *name, size_t n, uint64_t *total, Fault *reterr);
