/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Lines of the journal that programs and people may look for: each has a MESSAGE_ID= of its own, explained
 * in units/wrenn.catalog (journalctl -x), and fields that say whom it is about.
 */

#include "daemon/core/capsule.h"

typedef enum JournalEvent {
        JOURNAL_CREATED,
        JOURNAL_RUNNING,
        JOURNAL_FAILED, /* it did not start */
        JOURNAL_ENDED,
        JOURNAL_OOM,
        JOURNAL_CRASHED,
        JOURNAL_NO_ROOM, /* a create was refused: the host has no more */
        JOURNAL_DENIED,  /* a caller may not do that */
        _JOURNAL_EVENT_MAX,
} JournalEvent;

/* "MESSAGE_ID=<32 hex>" */
const char* journal_event_field(JournalEvent e);
/* What an end for that reason is. */
JournalEvent journal_event_of_end(EndReason reason);

/* A line about a capsule, which begins with its id. Fields: WRENN_CAPSULE_ID WRENN_TEAM WRENN_TEMPLATE
 * WRENN_UNIT WRENN_REASON. */
void journal_capsule(const Capsule *c, JournalEvent e, int level, const char *format, ...) _printf_(4, 5);
/* A call of uid was refused. Fields: WRENN_UID WRENN_ACTION. */
void journal_denied(uid_t uid, const char *action, const char *why);
