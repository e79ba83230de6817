/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Numbers, names and encodings of any text. */

#include "basic/limits.h"
#include "basic/strings.h"
#include "tests/fuzz/fuzz.h"

static void fuzz_numbers(const char *s) {
        char buffer[FORMAT_SIZE_LEN];
        uint64_t value;
        unsigned percent;
        uint32_t u32;
        int i32;

        if (parse_u64(s, &value) >= 0)
                (void) format_rfc3339(buffer, value);
        (void) parse_u32(s, &u32);
        (void) parse_int(s, &i32);
        (void) parse_boolean(s);
        if (parse_size(s, &value) >= 0)
                (void) format_size(buffer, value);
        if (parse_usec(s, &value) >= 0)
                (void) format_timespan(buffer, value);
        if (parse_percent(s, &percent) >= 0)
                assert(percent <= 1000);
}

static void fuzz_names(const char *s) {
        _cleanup_strv_ char **v = strv_split(s, " ,");

        assert(!name_is_valid(s) || (strlen(s) <= NAME_MAX_LEN && !strchr(s, '/')));
        assert(!team_is_valid(s) || strlen(s) <= TEAM_MAX_LEN);
        assert(!tag_is_valid(s) || (strlen(s) <= TAG_MAX_LEN && !strchr(s, '/')));
        assert(!id_is_valid("cl", s) || strlen(s) == CAPSULE_ID_LEN);
        assert(strv_length(v) <= strlen(s));
}

static void fuzz_encodings(const char *s, size_t n) {
        _cleanup_free_ char *shown = escape_for_display(s, n), *again = NULL;
        _cleanup_free_ void *data = NULL;
        size_t n_data, prefix;

        assert(utf8_is_valid(shown, strlen(shown)));
        for (const char *p = shown; *p; p++)
                assert((unsigned char) *p >= ' ' && *p != 0x7f);

        prefix = utf8_complete_prefix(s, n);
        assert(prefix <= n && n - prefix <= 3);
        assert(!utf8_is_valid(s, n) || prefix == n);

        if (base64_decode(s, n, &data, &n_data) >= 0) {
                again = base64_encode(data, n_data);
                assert(strlen(again) == n && memcmp(again, s, n) == 0);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        _cleanup_free_ char *s = malloc(n + 1);

        memcpy(s, data, n);
        s[n] = 0;
        fuzz_numbers(s);
        fuzz_names(s);
        fuzz_encodings(s, n);
        return 0;
}
