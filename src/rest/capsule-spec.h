/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The JSON bodies of create and exec, as structs (api.md §2.2, §2.11). 0 or absent is the default
 * everywhere. */

#include <jansson.h>
#include <systemd/sd-bus.h>

#include "basic/fault.h"

typedef struct CapsuleSpec {
        char *template; /* NULL: the key's or wrennd's default */
        uint32_t vcpus;
        uint64_t memory_bytes, disk_bytes, timeout_usec;
        char **metadata; /* "name=value" */
} CapsuleSpec;

void capsule_spec_done(CapsuleSpec *s);
/* ret must be empty; capsule_spec_done() also after a failure. */
int capsule_spec_from_json(json_t *body, CapsuleSpec *ret, Fault *reterr);
/* {sv} "Labels" a{ss} into an open options array. */
int capsule_spec_append_labels(const CapsuleSpec *s, sd_bus_message *m);

typedef struct ExecSpec {
        char *cmd;
        char **args;
        char **envs;           /* "NAME=value" */
        char *cwd;             /* NULL: home */
        char *user;            /* NULL: the template's default user */
        char *tag;             /* NULL: made by the agent; background only */
        uint64_t timeout_usec; /* 0: none but the daemon's */
        bool background, terminal;
        uint32_t cols, rows; /* of the terminal; 0: the agent's default */
} ExecSpec;

void exec_spec_done(ExecSpec *s);
int exec_spec_from_json(json_t *body, ExecSpec *ret, Fault *reterr);
/* What POST /processes takes (docs/PROTOCOLS.md §3); NULL on out of memory. */
char* exec_spec_to_agent(const ExecSpec *s);
