/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Field tables for JSON objects; see json-field.h. Every refusal names the member and what was expected. */

#include <stdio.h>
#include <string.h>

#include "basic/limits.h"
#include "basic/strings.h"
#include "shared/json-field.h"

static int out_of_memory(Fault *reterr) {
        return fault_set(reterr, FAULT_NO_MEMORY, "Out of memory.");
}

static Limit bounds_of(const JsonField *f, LimitKind kind) {
        if (f->limit) {
                Limit l = *f->limit;

                l.zero |= f->flags & JSON_FIELD_ZERO_IS_DEFAULT;
                return l;
        }
        return (Limit) {
                .kind = kind,
                .min = MAX(f->min, (f->flags & JSON_FIELD_NON_EMPTY) ? UINT64_C(1) : UINT64_C(0)),
                .max = f->max,
                .item = f->item_max,
                .all = f->total_max,
                .unit = f->scale,
                .zero = f->flags & JSON_FIELD_ZERO_IS_DEFAULT,
        };
}

/* 1: *ret set. 0: leave the field as it is. */
static int parse_unsigned(const JsonField *f, json_t *v, uint64_t type_max, uint64_t *ret, Fault *reterr) {
        Limit l = bounds_of(f, LIMIT_KIND_NUMBER);
        char given[32];
        uint64_t value;

        l.max = l.max > 0 ? MIN(l.max, type_max) : type_max;
        if (!json_is_integer(v))
                return limit_refuse_number(&l, f->name, /* given= */ NULL, reterr);
        if (json_integer_value(v) == 0 && l.zero)
                return 0;
        if (json_integer_value(v) < 0 ||
            __builtin_mul_overflow((uint64_t) json_integer_value(v), l.unit ?: 1, &value) || value < l.min ||
            value > l.max) {
                (void) snprintf(given, sizeof(given), "%" JSON_INTEGER_FORMAT, json_integer_value(v));
                return limit_refuse_number(&l, f->name, given, reterr);
        }

        *ret = value;
        return 1;
}

int json_parse_u32(const JsonField *f, json_t *v, void *field, Fault *reterr) {
        uint64_t value;
        int r;

        r = parse_unsigned(f, v, UINT32_MAX, &value, reterr);
        if (r > 0)
                *(uint32_t *) field = (uint32_t) value;
        return r < 0 ? r : 0;
}

int json_parse_u64(const JsonField *f, json_t *v, void *field, Fault *reterr) {
        uint64_t value;
        int r;

        r = parse_unsigned(f, v, INT64_MAX, &value, reterr);
        if (r > 0)
                *(uint64_t *) field = value;
        return r < 0 ? r : 0;
}

int json_parse_i64(const JsonField *f, json_t *v, void *field, Fault *reterr) {
        if (!json_is_integer(v))
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected an integer.", f->name);

        *(int64_t *) field = json_integer_value(v);
        return 0;
}

int json_parse_bool(const JsonField *f, json_t *v, void *field, Fault *reterr) {
        if (!json_is_boolean(v))
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected true or false.", f->name);

        *(bool *) field = json_is_true(v);
        return 0;
}

static int check_valid(const JsonField *f, const char *s, Fault *reterr) {
        if (!f->valid || f->valid(s))
                return 0;
        return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected %s.", f->name,
                         f->expected ?: "another text");
}

int json_parse_string(const JsonField *f, json_t *v, void *field, Fault *reterr) {
        Limit l = bounds_of(f, LIMIT_KIND_TEXT);
        const char *s = json_string_value(v);
        size_t n = json_string_length(v);
        int r;

        if (!s)
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected a string.", f->name);
        if (strlen(s) != n)
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected a string without NUL.", f->name);
        r = limit_check_text(&l, f->name, n, reterr);
        if (r >= 0)
                r = check_valid(f, s, reterr);
        if (r < 0)
                return r;
        return free_and_strdup(field, s) < 0 ? out_of_memory(reterr) : 0;
}

static void strv_replace(char ***field, char **v) {
        strv_free(*field);
        *field = v;
}

/* Room for n entries, if that many are allowed. */
static int start_list(const Limit *l, const JsonField *f, size_t n, char ***ret, Fault *reterr) {
        int r;

        r = limit_check_count(l, f->name, n, reterr);
        if (r < 0)
                return r;
        *ret = calloc(n + 1, sizeof(char *));
        return *ret ? 0 : out_of_memory(reterr);
}

/* NULL: no string, or one with NUL inside. */
static const char* entry_text(json_t *item) {
        const char *s = json_string_value(item);

        return s && strlen(s) == json_string_length(item) ? s : NULL;
}

int json_parse_strv(const JsonField *f, json_t *v, void *field, Fault *reterr) {
        Limit l = bounds_of(f, LIMIT_KIND_LIST);
        _cleanup_strv_ char **items = NULL;
        uint64_t total = 0;
        json_t *item;
        size_t i;
        int r;

        if (!json_is_array(v))
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected an array of strings.", f->name);
        r = start_list(&l, f, json_array_size(v), &items, reterr);
        if (r < 0)
                return r;

        json_array_foreach(v, i, item) {
                const char *s = entry_text(item);

                if (!s)
                        return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected an array of strings.",
                                         f->name);
                r = limit_check_entry(&l, f->name, strlen(s), &total, reterr);
                if (r >= 0)
                        r = check_valid(f, s, reterr);
                if (r < 0)
                        return r;
                items[i] = strdup(s);
                if (!items[i])
                        return out_of_memory(reterr);
        }

        strv_replace(field, TAKE_PTR(items));
        return 0;
}

int json_parse_map(const JsonField *f, json_t *v, void *field, Fault *reterr) {
        Limit l = bounds_of(f, LIMIT_KIND_LIST);
        _cleanup_strv_ char **items = NULL;
        uint64_t total = 0;
        const char *name;
        json_t *item;
        size_t i = 0;
        int r;

        if (!json_is_object(v))
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected an object of strings.", f->name);
        r = start_list(&l, f, json_object_size(v), &items, reterr);
        if (r < 0)
                return r;

        json_object_foreach(v, name, item) {
                const char *s = entry_text(item);

                if (!s)
                        return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected an object of strings.",
                                         f->name);
                if (!env_name_is_valid(name))
                        return fault_set(reterr, FAULT_INVALID_ARGS,
                                         "%s: expected non-empty names without '='.", f->name);
                r = limit_check_entry(&l, f->name, strlen(name) + 1 + strlen(s), &total, reterr);
                if (r < 0)
                        return r;
                items[i] = strjoin(name, "=", s);
                if (!items[i++])
                        return out_of_memory(reterr);
        }

        strv_replace(field, TAKE_PTR(items));
        return 0;
}

int json_parse_object(const JsonField *f, json_t *v, void *field, Fault *reterr) {
        json_t **p = field;

        if (!json_is_object(v))
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected an object.", f->name);

        json_decref(*p);
        *p = json_incref(v);
        return 0;
}

int json_dispatch(json_t *object, const JsonField fields[], void *target, Fault *reterr) {
        if (!json_is_object(object))
                return fault_set(reterr, FAULT_INVALID_ARGS, "Expected a JSON object.");

        for (const JsonField *f = fields; f->name; f++) {
                json_t *v;
                int r;

                v = json_object_get(object, f->name);
                if (v && !json_is_null(v)) {
                        r = f->parse(f, v, (char *) target + f->offset, reterr);
                        if (r < 0)
                                return r;
                } else if (f->flags & JSON_FIELD_MANDATORY)
                        return fault_set(reterr, FAULT_INVALID_ARGS, "%s: is required.", f->name);
        }

        return 0;
}

/* Deep nesting is refused before jansson makes objects of it: they take 45 times the room of the text. */
static bool json_is_too_deep(const char *text, size_t n) {
        bool in_string = false;
        size_t depth = 0;

        for (size_t i = 0; i < n; i++)
                if (in_string) {
                        if (text[i] == '\\')
                                i++;
                        else if (text[i] == '"')
                                in_string = false;
                } else if (text[i] == '"')
                        in_string = true;
                else if (text[i] == '{' || text[i] == '[') {
                        if (++depth > JSON_DEPTH_MAX)
                                return true;
                } else if ((text[i] == '}' || text[i] == ']') && depth > 0)
                        depth--;

        return false;
}

int json_parse_text(const char *text, size_t n, json_t **ret, Fault *reterr) {
        _cleanup_json_ json_t *v = NULL;
        json_error_t e;

        if (json_is_too_deep(text, n))
                return fault_set(reterr, FAULT_INVALID_ARGS, "invalid JSON body: more than %u levels deep.",
                                 JSON_DEPTH_MAX);

        v = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
        if (!v && json_error_code(&e) == json_error_out_of_memory)
                return out_of_memory(reterr);
        if (!v)
                return fault_set(reterr, FAULT_INVALID_ARGS, "invalid JSON body: line %i, column %i: %s.",
                                 e.line, e.column, e.text);
        if (!json_is_object(v))
                return fault_set(reterr, FAULT_INVALID_ARGS, "invalid JSON body: expected an object.");

        *ret = TAKE_PTR(v);
        return 0;
}

json_t* json_from_env(char *const *env) {
        _cleanup_json_ json_t *object = NULL;

        object = json_object();
        if (!object)
                return NULL;

        STRV_FOREACH(i, env) {
                const char *value = strchr(*i, '=');
                _cleanup_free_ char *name = NULL;

                if (!value)
                        continue;

                name = strndup(*i, (size_t) (value - *i));
                if (!name || json_object_set_new(object, name, json_string(value + 1)) < 0)
                        return NULL;
        }

        return TAKE_PTR(object);
}

json_t* json_from_strv(char *const *v) {
        _cleanup_json_ json_t *array = NULL;

        array = json_array();
        if (!array)
                return NULL;

        STRV_FOREACH(i, v)
                if (json_array_append_new(array, json_string(*i)) < 0)
                        return NULL;

        return TAKE_PTR(array);
}

json_t* json_from_fault(const Fault *fault) {
        return json_pack("{s:{s:s, s:s}}", "error", "code", fault_wire_name(fault->code), "message",
                         strempty(fault->message));
}
