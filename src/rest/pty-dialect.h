/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Which of the two dialects of a terminal a WebSocket speaks (api.md §2.16): bytes in JSON or in binary
 * frames. The first input decides, a later one of the other kind switches. Until then output is held back
 * for a while, and then what is known from before applies. No clock, no socket: the caller keeps the time.
 */

#include "basic/macro.h"

typedef enum PtyFraming {
        PTY_FRAMING_NONE, /* undecided, unknown */
        PTY_FRAMING_JSON,
        PTY_FRAMING_BINARY,
        _PTY_FRAMING_MAX,
        _PTY_FRAMING_INVALID = -EINVAL,
} PtyFraming;

/* "json", "binary"; "" for PTY_FRAMING_NONE. */
const char* pty_framing_to_string(PtyFraming f);
PtyFraming pty_framing_from_string(const char *s);

typedef struct PtyDialect {
        PtyFraming framing;  /* output is sent so; NONE: it is held back */
        PtyFraming fallback; /* once it was held back long enough */
        bool remembered;     /* fallback is no mere default */
        PtyFraming shown;    /* by the last input */
} PtyDialect;

/* The session has started. tag, key: as remembered with them, or NONE; other: the configured default. Inputs
 * that came before this count. */
void pty_dialect_start(PtyDialect *d, PtyFraming tag, PtyFraming key, PtyFraming other);
/* How long output is held back from then on; 0: not at all. */
uint64_t pty_dialect_hold_usec(const PtyDialect *d);
/* An input came. True when it is the first one, or of another kind than the last: to be remembered. */
bool pty_dialect_input(PtyDialect *d, PtyFraming framing);
/* The time is over, or the process, maybe without a start. */
void pty_dialect_settle(PtyDialect *d);

/* The dialects last shown in terminals, by capsule and tag; the oldest of PTY_TAGS_MAX is forgotten. */
typedef struct PtyTags PtyTags;
PtyTags* pty_tags_new(void); /* NULL on out of memory */
PtyTags* pty_tags_free(PtyTags *t);
DEFINE_CLEANUP(PtyTags, pty_tags_free)
PtyFraming pty_tags_get(const PtyTags *t, const char *capsule, const char *tag);
/* Best effort: out of memory forgets. */
void pty_tags_put(PtyTags *t, const char *capsule, const char *tag, PtyFraming framing);
