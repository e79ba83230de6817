/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The host's apt sources in both styles: what comes out is one line of the expected form for each entry. */

#include "basic/strings.h"
#include "tests/fuzz/fuzz.h"
#include "worker/sources.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        _cleanup_free_ char *text = strndup((const char *) data, n);

        for (unsigned deb822 = 0; text && deb822 < 2; deb822++) {
                _cleanup_strv_ char **lines = NULL;

                assert(sources_add_text(text, deb822 != 0, "bookworm", "trixie", &lines) == 0);
                STRV_FOREACH(l, lines) {
                        assert(startswith(*l, "deb http") || startswith(*l, "deb [signed-by=/"));
                        assert(strstr(*l, " trixie"));
                        assert(!strchr(*l, '\n'));
                }
        }
        return 0;
}
