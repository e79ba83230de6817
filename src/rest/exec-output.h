/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a foreground command wrote, and the JSON made of it (api.md §2.11). Both streams are shown as UTF-8
 * when both are valid, else both in base64. The JSON is made piecewise while it is sent: 64 MiB of control
 * characters would be six times that.
 */

#include "basic/macro.h"

typedef struct ExecOutput {
        char *data[2]; /* stdout, stderr */
        size_t n[2], n_allocated[2];
        uint64_t *budget; /* weak: bytes held by all; counted down again in exec_output_done() */
} ExecOutput;

/* budget: a counter that outlives this. */
void exec_output_init(ExecOutput *o, uint64_t *budget);
void exec_output_done(ExecOutput *o);
/* stream: 0 or 1. -E2BIG: beyond EXEC_OUTPUT_MAX; -ENOBUFS: beyond EXEC_OUTPUT_TOTAL_MAX; -ENOMEM. */
int exec_output_append(ExecOutput *o, unsigned stream, const void *data, size_t n);
size_t exec_output_size(const ExecOutput *o);

typedef struct ExecBody ExecBody;

/* Moves the output out of o. id, cmd: valid UTF-8. */
int exec_body_new(const char *id, const char *cmd, ExecOutput *o, int exit_code, uint64_t duration_msec,
                  ExecBody **ret);
ExecBody* exec_body_free(ExecBody *b);
DEFINE_CLEANUP(ExecBody, exec_body_free)
/* Bytes of the whole JSON text. */
uint64_t exec_body_size(const ExecBody *b);
/* The next bytes, as many as fit in max without splitting an escape; 0 at the end. */
size_t exec_body_read(ExecBody *b, char *buffer, size_t max);
