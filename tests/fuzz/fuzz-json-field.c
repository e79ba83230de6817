/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* JSON text through a table with every kind of field. */

#include "basic/limits.h"
#include "basic/strings.h"
#include "shared/json-field.h"
#include "tests/fuzz/fuzz.h"

typedef struct Target {
        uint32_t small;
        uint64_t scaled;
        int64_t any;
        bool flag;
        char *text, *name;
        char **list, **map;
        json_t *object;
} Target;

static void target_done(Target *t) {
        free(t->text);
        free(t->name);
        strv_free(t->list);
        strv_free(t->map);
        json_decref(t->object);
}

static const JsonField fields[] = {
        { "n", json_parse_u32, offsetof(Target, small), .min = 1, .max = 32,
          .flags = JSON_FIELD_ZERO_IS_DEFAULT },
        { "mb", json_parse_u64, offsetof(Target, scaled), .min = 128 * MIB, .max = 1 * GIB, .scale = MIB },
        { "i", json_parse_i64, offsetof(Target, any) },
        { "b", json_parse_bool, offsetof(Target, flag) },
        { "s", json_parse_string, offsetof(Target, text), .max = 8 },
        { "name", json_parse_string, offsetof(Target, name), .flags = JSON_FIELD_NON_EMPTY,
          .valid = name_is_valid },
        { "l", json_parse_strv, offsetof(Target, list), .max = 3, .item_max = 4, .total_max = 12 },
        { "m", json_parse_map, offsetof(Target, map), .max = 2, .item_max = 8, .total_max = 14 },
        { "o", json_parse_object, offsetof(Target, object) },
        {}
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        _cleanup_(target_done) Target t = { .small = 1, .scaled = 128 * MIB };
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_json_ json_t *v = NULL;
        int r;

        r = json_parse_text((const char *) data, n, &v, &fault);
        if (r >= 0)
                r = json_dispatch(v, fields, &t, &fault);

        /* an error has a text that may be shown, success has values in their ranges */
        assert((r < 0) == fault_is_set(&fault));
        if (r < 0)
                assert(utf8_is_valid(fault.message, strlen(fault.message)));
        assert(t.small >= 1 && t.small <= 32);
        assert(t.scaled >= 128 * MIB && t.scaled <= GIB);
        assert(!t.text || strlen(t.text) <= 8);
        assert(!t.name || name_is_valid(t.name));
        assert(strv_length(t.list) <= 3 && strv_length(t.map) <= 2);
        return 0;
}
