/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>

#include "basic/files.h"
#include "basic/strings.h"
#include "daemon/core/journal.h"
#include "tests/unit/test.h"

/* Each event has an id of its own, and that an entry in the catalog. */
TEST(catalog) {
        _cleanup_free_ char *text = NULL;

        ASSERT_EQ(read_file_at(AT_FDCWD, SOURCE_DIR "/units/wrenn.catalog", MIB, &text, NULL), 0);
        for (JournalEvent e = 0; e < _JOURNAL_EVENT_MAX; e++) {
                const char *id = startswith(journal_event_field(e), "MESSAGE_ID=");
                _cleanup_free_ char *entry = NULL;

                ASSERT_NOT_NULL(id);
                ASSERT_EQ(strspn(id, "0123456789abcdef"), 32);
                ASSERT_EQ(strlen(id), 32);
                entry = strjoin("\n-- ", id, "\nSubject: ");
                ASSERT_NOT_NULL(strstr(text, entry));
                for (JournalEvent other = 0; other < e; other++)
                        ASSERT_TRUE(!streq(journal_event_field(other), journal_event_field(e)));
        }
}

TEST(ends) {
        for (EndReason reason = 0; reason < _END_REASON_MAX; reason++) {
                JournalEvent e = journal_event_of_end(reason);

                ASSERT_TRUE(e == JOURNAL_ENDED || e == JOURNAL_OOM || e == JOURNAL_CRASHED);
        }
        ASSERT_EQ(journal_event_of_end(END_USER), JOURNAL_ENDED);
        ASSERT_EQ(journal_event_of_end(END_OOM), JOURNAL_OOM);
        ASSERT_EQ(journal_event_of_end(END_VMM_CRASH), JOURNAL_CRASHED);
}
