/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The guest's serial console: what it says goes through a token bucket into a file of at most
 * CONSOLE_RING_BYTES and to live readers. The file is plain text, newest at its end: when it is full its
 * older half is given up. The guest is read as fast as it writes, so that it never waits; what the bucket
 * refuses is counted and a line in the text says how much.
 */

#include <systemd/sd-event.h>

#include "basic/limits.h"
#include "basic/macro.h"

typedef struct Console Console;

/* ring_fd: the file, O_RDWR; taken on success. */
int console_new(sd_event *e, int ring_fd, Console **ret);
Console* console_free(Console *c);
DEFINE_CLEANUP(Console, console_free)

/* Reads from here from now on; takes fd. */
int console_attach(Console *c, int fd);

/* What is left in the guest's pipe; the guest is gone. */
void console_drain(Console *c);

/* A pipe's read end that holds the text kept so far and gets all that follows, as fast as it is read; what
 * it is too slow for it misses. -EMFILE at CONSOLE_READERS_MAX. */
int console_open_reader(Console *c, int *ret_fd);

uint64_t console_dropped_bytes(const Console *c);
