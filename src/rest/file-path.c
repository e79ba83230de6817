/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/limit-table.h"
#include "basic/strings.h"
#include "rest/file-path.h"

static int path_encode(const char *name, const char *bytes, size_t n, char **ret, Fault *reterr) {
        int r;

        if (n == 0)
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s is required", name);
        r = limit_check_text(&limit_table[LIMIT_FILE_PATH], name, n, reterr);
        if (r < 0)
                return r;
        if (memchr(bytes, '\0', n))
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: a NUL byte is not allowed.", name);

        *ret = percent_encode(bytes, n);
        return *ret ? 0 : fault_set_errno(reterr, -ENOMEM, "Failed to take the path");
}

int file_path_from_text(const char *name, const char *text, size_t n, char **ret, Fault *reterr) {
        if (!utf8_is_valid(text, n))
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "%s: expected UTF-8; use %s_base64 for other bytes.", name, name);
        return path_encode(name, text, n, ret, reterr);
}

int file_path_from_base64(const char *name, const char *text, size_t n, char **ret, Fault *reterr) {
        _cleanup_free_ char *copy = strndup(text, n);
        _cleanup_free_ void *bytes = NULL;
        size_t n_bytes;
        int r;

        if (!copy)
                return fault_set_errno(reterr, -ENOMEM, "Failed to take the path");
        r = strlen(copy) == n ? base64_decode(copy, n, &bytes, &n_bytes) : -EINVAL;
        if (r == -ENOMEM)
                return fault_set_errno(reterr, r, "Failed to take the path");
        if (r < 0)
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s_base64: expected base64.", name);
        return path_encode(name, bytes, n_bytes, ret, reterr);
}

/* The string of this member; *ret NULL: there is none. */
static int get_string(json_t *body, const char *name, json_t **ret, Fault *reterr) {
        json_t *value = json_object_get(body, name);

        *ret = json_is_null(value) ? NULL : value;
        if (*ret && !json_is_string(value))
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected a string.", name);
        return 0;
}

int file_path_from_json(json_t *body, const char *name, char **ret, Fault *reterr) {
        json_t *text, *base64;
        char name_base64[32];
        int r;

        (void) snprintf(name_base64, sizeof(name_base64), "%s_base64", name);
        r = get_string(body, name, &text, reterr);
        if (r < 0)
                return r;
        r = get_string(body, name_base64, &base64, reterr);
        if (r < 0)
                return r;

        if (text && base64)
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s and %s exclude each other.", name,
                                 name_base64);
        if (base64)
                return file_path_from_base64(name, json_string_value(base64), json_string_length(base64),
                                             ret, reterr);
        return file_path_from_text(name, text ? json_string_value(text) : "", json_string_length(text), ret,
                                   reterr);
}

/* The scanner has checked the digits. */
static size_t decode_query(char *s, size_t n) {
        size_t k = 0;

        for (size_t i = 0; i < n; i++) {
                uint8_t byte;

                if (s[i] == '%' && n - i > 2 &&
                    hex_decode((char[]) { s[i + 1], s[i + 2], '\0' }, &byte, 1) >= 0) {
                        s[k++] = (char) byte;
                        i += 2;
                } else {
                        s[k++] = s[i] == '+' ? ' ' : s[i];
                }
        }
        return k;
}

int file_path_from_query(const char *query, char **ret, Fault *reterr) {
        _cleanup_free_ char *value = NULL;

        for (const char *p = query; p; p = strchr(p, '&')) {
                const char *text;

                p += *p == '&';
                text = startswith(p, "path=");
                if (!text)
                        continue;
                if (value)
                        return fault_set(reterr, FAULT_INVALID_ARGS, "path stands twice in the query.");
                value = strndup(text, strcspn(text, "&"));
                if (!value)
                        return fault_set_errno(reterr, -ENOMEM, "Failed to take the path");
        }
        return path_encode("path", value ?: "", value ? decode_query(value, strlen(value)) : 0, ret, reterr);
}
