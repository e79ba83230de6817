/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Tables that turn a JSON object into a struct: one row a member, with its range, so that every error names
 * the member and what was expected. Used for REST bodies, control.sock and agent messages. null = absent.
 * Text is parsed with JSON_REJECT_DUPLICATES and JSON_ALLOW_NUL; depth above JSON_DEPTH_MAX is refused.
 */

#include <jansson.h>

#include "basic/fault.h"
#include "basic/limit-table.h"
#include "basic/macro.h"

static inline void json_decrefp_(json_t **p) {
        if (*p)
                json_decref(*p);
}
#define _cleanup_json_ _cleanup_(json_decrefp_)

typedef struct JsonField JsonField;
typedef int (*JsonParser)(const JsonField *f, json_t *value, void *field, Fault *reterr);

enum {
        JSON_FIELD_MANDATORY = 1 << 0,
        JSON_FIELD_NON_EMPTY = 1 << 1,       /* strings, arrays, maps */
        JSON_FIELD_ZERO_IS_DEFAULT = 1 << 2, /* 0 leaves the field as it was, whatever min or limit say */
};

struct JsonField {
        const char *name; /* {} ends the table */
        JsonParser parse;
        size_t offset;
        unsigned flags;
        const Limit *limit; /* a row of the table, in place of the five numbers below */
        /* numbers: value (after scale); strings: bytes; arrays, maps: entries. max 0: no bound but the
         * parser's */
        uint64_t min, max;
        uint64_t item_max;            /* arrays, maps: bytes of one entry */
        uint64_t total_max;           /* arrays, maps: sum of bytes */
        uint64_t scale;               /* numbers: 0 = 1; e.g. MIB for memory_mb; overflow-checked */
        bool (*valid)(const char *s); /* strings: extra check */
        const char *expected;         /* text for errors of 'valid': "a name like [a-z]…" */
};

int json_parse_u32(const JsonField *f, json_t *v, void *field, Fault *reterr);
int json_parse_u64(const JsonField *f, json_t *v, void *field, Fault *reterr);
/* no range check but 64 bit */
int json_parse_i64(const JsonField *f, json_t *v, void *field, Fault *reterr);
int json_parse_bool(const JsonField *f, json_t *v, void *field, Fault *reterr);
/* char *, freed and replaced; no NUL inside */
int json_parse_string(const JsonField *f, json_t *v, void *field, Fault *reterr);
int json_parse_strv(const JsonField *f, json_t *v, void *field, Fault *reterr); /* char ** */
/* object of strings -> char ** of "NAME=value" */
int json_parse_map(const JsonField *f, json_t *v, void *field, Fault *reterr);
/* json_t *, a reference */
int json_parse_object(const JsonField *f, json_t *v, void *field, Fault *reterr);

/* Unknown members are ignored. 0, or the errno of the fault set. Fields already parsed stay filled: the
 * caller's _done frees them. */
int json_dispatch(json_t *object, const JsonField fields[], void *target, Fault *reterr);

/* Text to object (not array or scalar): FAULT_INVALID_ARGS "invalid JSON body: line 1, column 5: …". */
int json_parse_text(const char *text, size_t n, json_t **ret, Fault *reterr);

/* "NAME=value" vector to object. NULL on out of memory. */
json_t* json_from_env(char *const *env);
json_t* json_from_strv(char *const *v);
/* {"error":{"code":"<wire name>","message":"…"}} */
json_t* json_from_fault(const Fault *fault);
