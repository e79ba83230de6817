/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Our terminal while a terminal of a capsule speaks through it: raw, and back as it was whatever happens. */

#include "basic/macro.h"

/* Control and ], so often within a second: leaves the terminal, as machinectl(1) does. */
#define ESCAPE_KEY       0x1d
#define ESCAPE_KEY_TIMES 3U
#define ESCAPE_KEY_USEC  (1 * USEC_PER_SEC)

/* Standard input and output are terminals. */
bool terminal_is_ours(void);
/* Standard input raw (termios(3)), until terminal_restore(), exit(3) or a signal that would end us with a
 * core. Again after a stop. 0 or -errno. */
int terminal_make_raw(void);
/* As it was; nothing if it is not raw. Safe in signal handlers. */
void terminal_restore(void);
/* Switches off what a program left switched on when it did not end itself: colours, mouse, pasting marks. */
void terminal_calm(void);
/* Of standard output, at least 1 and at most what the service takes; 80x24 when unknown. */
void terminal_size(uint32_t *ret_cols, uint32_t *ret_rows);

typedef struct EscapeKey {
        unsigned n;
        uint64_t first_usec;
} EscapeKey;

/* What is typed: true when the last of the keys is among it; *ret_n is then where it stands, else n. */
bool escape_key_seen(EscapeKey *k, const char *data, size_t n, uint64_t now_usec, size_t *ret_n);
