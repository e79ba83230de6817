/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/strings.h"
#include "ctl/progress.h"

#define NAME_WIDTH 24
#define BAR_WIDTH  20U

/* Bytes a second; nothing is known in the first moment. */
static uint64_t rate(uint64_t bytes, uint64_t elapsed_usec) {
        unsigned __int128 n = (unsigned __int128) bytes * USEC_PER_SEC;

        return elapsed_usec < 100 * USEC_PER_MSEC ? 0 : (uint64_t) (n / elapsed_usec);
}

char* progress_line(const char *name, uint64_t bytes, uint64_t total, uint64_t elapsed_usec) {
        _cleanup_free_ char *shown = escape_for_display(name, strlen(name)), *bar = NULL;
        char copied[FORMAT_SIZE_LEN], speed[FORMAT_SIZE_LEN];
        unsigned percent;

        if (!shown)
                return NULL;
        if (total > 0) {
                /* archives are larger than what is in them */
                percent = (unsigned) MIN((unsigned __int128) bytes * 100 / total, (unsigned __int128) 100);
                bar = asprintf_null("[%.*s%*s] %3u%% ", (int) (percent * BAR_WIDTH / 100),
                                    "####################", (int) (BAR_WIDTH - percent * BAR_WIDTH / 100),
                                    "", percent);
                if (!bar)
                        return NULL;
        }
        return asprintf_null("%-*.*s %s%8s %8s/s", NAME_WIDTH,
                             (int) utf8_complete_prefix(shown, MIN(strlen(shown), (size_t) NAME_WIDTH)),
                             shown, strempty(bar), format_size(copied, bytes),
                             format_size(speed, rate(bytes, elapsed_usec)));
}
