/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* main() of every unit test; see test.h. */

#include <dirent.h>

#include "tests/unit/test.h"

#define TESTS_MAX 256U

static struct CMUnitTest tests[TESTS_MAX];
static size_t n_tests;

void test_register(const char *name, void (*function)(void **state)) {
        assert(n_tests < TESTS_MAX);
        tests[n_tests++] = (struct CMUnitTest) { .name = name, .test_func = function };
}

static unsigned count_fds(void) {
        unsigned n = 0;
        DIR *d;

        d = opendir("/proc/self/fd");
        if (!d)
                return 0;

        while (readdir(d))
                n++;

        (void) closedir(d);
        return n;
}

int main(int argc, char *argv[]) {
        unsigned n_fds = count_fds();
        int r;

        cmocka_set_message_output(CM_OUTPUT_TAP);
        r = _cmocka_run_group_tests(argv[0], tests, n_tests, NULL, NULL);

        if (r == 0 && count_fds() != n_fds) {
                printf("Bail out! %u file descriptors before, %u after the tests\n", n_fds, count_fds());
                return 1;
        }

        return r;
}
