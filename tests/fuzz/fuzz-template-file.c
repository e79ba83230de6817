/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A description of a template: whatever it says, what is taken can be handed to mmdebstrap, and an error
 * names the line. */

#include "basic/limits.h"
#include "basic/strings.h"
#include "daemon/core/template-file.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        _cleanup_(template_file_done) TemplateFile f = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_free_ char *text = strndup((const char *) data, n);

        if (!text)
                return 0;
        if (template_file_parse("x", text, &f, &fault) < 0) {
                assert(fault_is_set(&fault) && startswith(fault.message, "x:"));
                return 0;
        }

        assert(!fault_is_set(&fault));
        assert(strv_length(f.packages) <= TEMPLATE_PACKAGES_MAX);
        STRV_FOREACH(p, f.packages)
                assert(**p && **p != '-' && **p != '.' && !strpbrk(*p, "/ \t\n'\"$`;&|"));
        STRV_FOREACH(p, f.exclude_paths)
                assert(**p == '/');
        STRV_FOREACH(e, f.env)
                assert(strchr(*e, '=') > *e);
        assert(!f.suite || name_is_valid(f.suite));
        return 0;
}
