/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Removal that nobody waits for: a rename into the trash directory makes a thing gone, then idle turns of
 * the loop free its blocks bit by bit, so that a large layer never holds up a request. What is found at
 * start-up is removed, too.
 */

#include <systemd/sd-event.h>

#include "basic/macro.h"

typedef struct Trash Trash;

/* state_fd: the directory that holds "trash"; borrowed, outlives it. */
int trash_new(sd_event *e, int state_fd, Trash **ret);
Trash* trash_free(Trash *t);
DEFINE_CLEANUP(Trash, trash_free)

/* Moves name, below dir_fd on the same file system, into the trash. Absent is fine. durable: both
 * directories are fsynced. 0 or -errno. */
int trash_put(Trash *t, int dir_fd, const char *name, bool durable);
