/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "basic/macro.h"

/* One line of a terminal: what is copied, how much of it, how fast. total 0: unknown, and no bar then. The
 * name is made harmless and short. Owned by the caller, NULL on out of memory. */
char* progress_line(const char *name, uint64_t bytes, uint64_t total, uint64_t elapsed_usec);
