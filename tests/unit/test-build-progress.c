/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/strings.h"
#include "tests/unit/test.h"
#include "worker/build.h"

typedef struct Seen {
        double last;
        unsigned n;
        char step[64];
} Seen;

static void on_report(double fraction, const char *step, void *userdata) {
        Seen *s = userdata;

        ASSERT_TRUE(fraction >= s->last && fraction <= 1);
        s->last = fraction;
        s->n++;
        (void) snprintf(s->step, sizeof(s->step), "%s", step);
}

TEST(stages) {
        static const struct {
                const char *line;
                double from, to;
                const char *step;
        } lines[] = {
                { "I: automatically chosen mode: root", 0, 0.01, "Preparing" },
                { "I: running apt-get update...", 0.01, 0.02, "Reading package lists" },
                { "Get:1 http://x bookworm InRelease [1 kB]", 0.01, 0.05, "Reading package lists" },
                { "I: downloading packages with apt...", 0.12, 0.13, "Downloading essential packages" },
                { "0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.", 0.12, 0.13,
                  "Downloading essential packages" },
                { "Get:1 http://x y", 0.2, 0.22, "Downloading essential packages" },
                { "Get:2 http://x y", 0.29, 0.31, "Downloading essential packages" },
                { "Get:3 more than was told", 0.29, 0.31, "Downloading essential packages" },
                { "something else", 0.29, 0.31, "Downloading essential packages" },
                { "I: extracting archives...", 0.3, 0.31, "Unpacking essential packages" },
                /* never back */
                { "I: running apt-get update...", 0.3, 0.31, "Unpacking essential packages" },
                { "I: installing remaining packages inside the chroot...", 0.62, 0.63,
                  "Installing packages" },
                { "0 upgraded, 999999999 newly installed, 0 to remove", 0.62, 0.63, "Installing packages" },
                { "0 upgraded, 1 newly installed, 0 to remove", 0.62, 0.63, "Installing packages" },
                { "Unpacking git", 0.72, 0.75, "Installing packages" },
                { "I: success in 3 seconds", 1, 1, "Cleaning up" },
                { "", 1, 1, "Cleaning up" },
        };
        Seen seen = {};
        const WorkerProgress progress = { .report = on_report, .userdata = &seen, .from = 0, .to = 1 };
        BuildProgress b = { .progress = &progress };

        for (size_t i = 0; i < ELEMENTSOF(lines); i++) {
                build_progress_line(&b, lines[i].line);
                if (seen.last < lines[i].from - 1e-9 || seen.last > lines[i].to + 1e-9 ||
                    !streq(seen.step, lines[i].step))
                        fail_msg("%s: %f %s", lines[i].line, seen.last, seen.step);
        }
}
