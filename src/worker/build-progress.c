/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * mmdebstrap tells its stages on lines that begin with "I: "; within one apt says how many packages are to
 * come ("12 newly installed") and then one line for each. The shares of the stages are measured ones of a
 * small build.
 */

#include <stdio.h>

#include "basic/strings.h"
#include "worker/build.h"

static const struct {
        const char *line; /* after "I: " */
        const char *step;
        double from, to;
        const char *item; /* line of one package of this stage */
        unsigned items;   /* expected when apt tells no number */
} stages[] = {
        { "automatically chosen mode", "Preparing", 0, 0.01, NULL, 1 },
        { "running apt-get update", "Reading package lists", 0.01, 0.12, "Get:", 10 },
        { "downloading packages with apt", "Downloading essential packages", 0.12, 0.3, "Get:", 80 },
        { "extracting archives", "Unpacking essential packages", 0.3, 0.42, NULL, 80 },
        { "installing essential packages", "Setting up essential packages", 0.42, 0.62, "Setting up ", 80 },
        { "installing remaining packages", "Installing packages", 0.62, 0.97, NULL, 40 },
        { "cleaning package lists", "Cleaning up", 0.97, 1, NULL, 1 },
        { "success in", "Cleaning up", 1, 1, NULL, 1 },
};

/* The lines that count in the long stage: each package is downloaded, unpacked and set up. */
static bool is_package_line(const char *line) {
        return startswith(line, "Get:") || startswith(line, "Unpacking ") || startswith(line, "Setting up ");
}

void build_progress_line(BuildProgress *b, const char *line) {
        const char *info = startswith(line, "I: ");
        const char *item = stages[b->stage].item;
        unsigned upgraded, n_new, n_total;
        double part, fraction;

        for (unsigned i = b->stage; info && i < ELEMENTSOF(stages); i++)
                if (startswith(info, stages[i].line)) {
                        b->stage = i;
                        b->n_done = 0;
                        b->n_total = stages[i].items;
                        break;
                }

        if (!info && sscanf(line, "%u upgraded, %u newly installed", &upgraded, &n_new) == 2 && n_new > 0 &&
            n_new < 100000)
                b->n_total = item ? n_new : 3 * n_new;
        else if (!info && (item ? startswith(line, item) != NULL : is_package_line(line)))
                b->n_done++;
        else if (!info)
                return;

        n_total = MAX(b->n_total, 1U);
        part = (double) MIN(b->n_done, n_total) / n_total;
        fraction = stages[b->stage].from + (stages[b->stage].to - stages[b->stage].from) * part;
        if (fraction < b->fraction)
                fraction = b->fraction;
        b->fraction = fraction;
        b->step = stages[b->stage].step;
        worker_progress(b->progress, fraction, b->step);
}
