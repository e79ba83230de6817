/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>

#include "basic/log.h"
#include "basic/strings.h"
#include "daemon/core/journal.h"

#define FIELD_MAX 256U
#define TEXT_MAX  1024U

static const char *const event_fields[_JOURNAL_EVENT_MAX] = {
        [JOURNAL_CREATED] = "MESSAGE_ID=a7a385afcc6d4133a4b5dfd8c2f4cdaa",
        [JOURNAL_RUNNING] = "MESSAGE_ID=9d762d29ba88410195911ae8ea359662",
        [JOURNAL_FAILED] = "MESSAGE_ID=4c6a76fc0346410d900af5b6b11dcdf5",
        [JOURNAL_ENDED] = "MESSAGE_ID=17a43622bb6a4724818adb0171b6c490",
        [JOURNAL_OOM] = "MESSAGE_ID=e50bff64fe5449ddb4722d849e14c40b",
        [JOURNAL_CRASHED] = "MESSAGE_ID=50f5e59a7240416eb13ac4204e2de97d",
        [JOURNAL_NO_ROOM] = "MESSAGE_ID=a273ec51e144419c8021d8e575a5d43b",
        [JOURNAL_DENIED] = "MESSAGE_ID=8472e9cf8fad423c9c357b4f04863700",
};

const char* journal_event_field(JournalEvent e) {
        assert(e >= 0 && e < _JOURNAL_EVENT_MAX);
        return event_fields[e];
}

JournalEvent journal_event_of_end(EndReason reason) {
        switch (reason) {
        case END_OOM:
                return JOURNAL_OOM;
        case END_VMM_CRASH:
        case END_AGENT_LOST:
        case END_LOST:
        case END_DISK_FULL:
                return JOURNAL_CRASHED;
        default:
                return JOURNAL_ENDED;
        }
}

void journal_capsule(const Capsule *c, JournalEvent e, int level, const char *format, ...) {
        char id[FIELD_MAX], team[FIELD_MAX], template[FIELD_MAX], unit[FIELD_MAX], reason[FIELD_MAX];
        const char *const fields[] = { journal_event_field(e), id, team, template, unit, reason, NULL };
        char text[TEXT_MAX];
        va_list ap;
        int n;

        if (level > log_get_level())
                return;

        (void) snprintf(id, sizeof(id), "WRENN_CAPSULE_ID=%s", c->id);
        (void) snprintf(team, sizeof(team), "WRENN_TEAM=%s", c->spec.team);
        (void) snprintf(template, sizeof(template), "WRENN_TEMPLATE=%s", c->spec.template);
        (void) snprintf(unit, sizeof(unit), "WRENN_UNIT=%s", strempty(c->unit));
        (void) snprintf(reason, sizeof(reason), "WRENN_REASON=%s",
                        c->reason == END_NONE ? "" : end_reason_to_string(c->reason));
        va_start(ap, format);
        n = vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        (void) log_full(level, 0, fields, __FILE__, __LINE__, __func__, "%s: %s", c->id, n < 0 ? "" : text);
}

void journal_denied(uid_t uid, const char *action, const char *why) {
        char uid_field[FIELD_MAX], action_field[FIELD_MAX];
        const char *const fields[] = { journal_event_field(JOURNAL_DENIED), uid_field, action_field, NULL };

        if (LOG_NOTICE > log_get_level())
                return;

        (void) snprintf(uid_field, sizeof(uid_field), "WRENN_UID=%u", uid);
        (void) snprintf(action_field, sizeof(action_field), "WRENN_ACTION=%s", action);
        (void) log_full(LOG_NOTICE, 0, fields, __FILE__, __LINE__, __func__, "User %u was refused '%s': %s",
                        uid, action, why);
}
