/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Runs a fuzz target over every file of the directories given: corpora, and crashes that were fixed. */

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>

#include "basic/files.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "tests/fuzz/fuzz.h"

static int replay(int dir_fd, const char *name) {
        _cleanup_free_ char *text = NULL, *exact = NULL;
        size_t n;
        int r;

        r = read_file_at(dir_fd, name, 16 * MIB, &text, &n);
        if (r < 0)
                return r;

        /* without the NUL behind it, so that reading too far is seen */
        exact = malloc(n + (n == 0));
        if (!exact)
                return -ENOMEM;

        memcpy(exact, text, n);
        (void) LLVMFuzzerTestOneInput((const uint8_t *) exact, n);
        return 0;
}

int main(int argc, char *argv[]) {
        unsigned n_files = 0;

        for (int i = 1; i < argc; i++) {
                DIR *d = opendir(argv[i]);

                if (!d) {
                        perror(argv[i]);
                        return 1;
                }

                for (struct dirent *e; (e = readdir(d));) {
                        if (e->d_name[0] == '.')
                                continue;
                        if (replay(dirfd(d), e->d_name) < 0) {
                                perror(e->d_name);
                                return 1;
                        }
                        n_files++;
                }

                (void) closedir(d);
        }

        printf("%u inputs\n", n_files);
        return n_files > 0 ? 0 : 1;
}
