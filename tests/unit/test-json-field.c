/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/limits.h"
#include "basic/strings.h"
#include "shared/json-field.h"
#include "tests/unit/test.h"

typedef struct Target {
        uint32_t small;
        uint64_t large, scaled;
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
        { "small", json_parse_u32, offsetof(Target, small), .min = 1, .max = 32,
          .flags = JSON_FIELD_ZERO_IS_DEFAULT },
        { "large", json_parse_u64, offsetof(Target, large) },
        { "scaled_mb", json_parse_u64, offsetof(Target, scaled), .min = 128 * MIB, .max = 1 * GIB,
          .scale = MIB },
        { "any", json_parse_i64, offsetof(Target, any) },
        { "flag", json_parse_bool, offsetof(Target, flag) },
        { "text", json_parse_string, offsetof(Target, text), .max = 8 },
        { "name", json_parse_string, offsetof(Target, name), .flags = JSON_FIELD_NON_EMPTY,
          .valid = name_is_valid, .expected = "a name like [a-z]" },
        { "list", json_parse_strv, offsetof(Target, list), .max = 3, .item_max = 4, .total_max = 12 },
        { "map", json_parse_map, offsetof(Target, map), .min = 1, .max = 2, .item_max = 8, .total_max = 14 },
        { "object", json_parse_object, offsetof(Target, object) },
        {}
};

static const JsonField mandatory[] = { { "text", json_parse_string, offsetof(Target, text),
                                         .flags = JSON_FIELD_MANDATORY | JSON_FIELD_NON_EMPTY },
                                       {} };

TEST(refusals) {
        static const struct {
                const char *text, *message;
        } cases[] = {
                { "{\"small\":33}", "small: expected 1 to 32, not 33." },
                { "{\"small\":-1}", "small: expected 1 to 32, not -1." },
                { "{\"small\":1.0}", "small: expected an integer, 1 to 32." },
                { "{\"small\":\"2\"}", "small: expected an integer, 1 to 32." },
                { "{\"small\":true}", "small: expected an integer, 1 to 32." },
                { "{\"small\":4294967297}", "small: expected 1 to 32, not 4294967297." },
                { "{\"large\":-1}", "large: expected 0 to 9223372036854775807, not -1." },
                { "{\"scaled_mb\":127}", "scaled_mb: expected 128 to 1024, not 127." },
                { "{\"scaled_mb\":1025}", "scaled_mb: expected 128 to 1024, not 1025." },
                { "{\"scaled_mb\":0}", "scaled_mb: expected 128 to 1024, not 0." },
                { "{\"scaled_mb\":17592186044417}", "scaled_mb: expected 128 to 1024, not 17592186044417." },
                { "{\"any\":1.5}", "any: expected an integer." },
                { "{\"flag\":1}", "flag: expected true or false." },
                { "{\"text\":1}", "text: expected a string." },
                { "{\"text\":\"123456789\"}", "text: expected a string of 0 to 8 bytes, not 9." },
                { "{\"text\":\"a\\u0000b\"}", "text: expected a string without NUL." },
                { "{\"name\":\"\"}", "name: expected a non-empty string." },
                { "{\"name\":\"../x\"}", "name: expected a name like [a-z]." },
                { "{\"list\":\"a\"}", "list: expected an array of strings." },
                { "{\"list\":[1]}", "list: expected an array of strings." },
                { "{\"list\":[\"a\\u0000\"]}", "list: expected an array of strings." },
                { "{\"list\":[\"\",\"\",\"\",\"\"]}", "list: expected at most 3 entries, not 4." },
                { "{\"list\":[\"12345\"]}", "list: expected entries of at most 4 bytes, not 5." },
                { "{\"list\":[\"1234\",\"1234\",\"1234\"]}", "list: expected at most 12B altogether." },
                { "{\"map\":[]}", "map: expected an object of strings." },
                { "{\"map\":{}}", "map: expected at least 1 entries, not 0." },
                { "{\"map\":{\"a\":1}}", "map: expected an object of strings." },
                { "{\"map\":{\"a\":\"b\\u0000\"}}", "map: expected an object of strings." },
                { "{\"map\":{\"a=b\":\"1\"}}", "map: expected non-empty names without '='." },
                { "{\"map\":{\"\":\"1\"}}", "map: expected non-empty names without '='." },
                { "{\"map\":{\"a\":\"1234567\"}}", "map: expected entries of at most 8 bytes, not 9." },
                { "{\"map\":{\"a\":\"12345\",\"b\":\"12345\"}}", "map: expected at most 14B altogether." },
                { "{\"map\":{\"a\":\"\",\"b\":\"\",\"c\":\"\"}}",
                  "map: expected at most 2 entries, not 3." },
                { "{\"object\":[]}", "object: expected an object." },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(target_done) Target t = {};
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                _cleanup_json_ json_t *v = NULL;

                ASSERT_OK(json_parse_text(cases[i].text, strlen(cases[i].text), &v, &fault));
                ASSERT_EQ(json_dispatch(v, fields, &t, &fault), -EINVAL);
                ASSERT_FAULT(fault, FAULT_INVALID_ARGS, cases[i].message);
        }
}

TEST(mandatory) {
        static const char *const cases[][2] = {
                { "{}", "text: is required." },
                { "{\"text\":null}", "text: is required." },
                { "{\"text\":\"\"}", "text: expected a non-empty string." },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(target_done) Target t = {};
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                _cleanup_json_ json_t *v = NULL;

                ASSERT_OK(json_parse_text(cases[i][0], strlen(cases[i][0]), &v, &fault));
                ASSERT_EQ(json_dispatch(v, mandatory, &t, &fault), -EINVAL);
                ASSERT_FAULT(fault, FAULT_INVALID_ARGS, cases[i][1]);
        }
}

TEST(accepted) {
        static const char text[] =
                        "{\"small\":32,\"large\":9223372036854775807,\"scaled_mb\":128,\"any\":-5,\"flag\":true,"
                        "\"text\":\"12345678\",\"name\":\"ab\",\"list\":[\"abcd\",\"\",\"c\"],"
                        "\"map\":{\"A\":\"1=2\",\"B\":\"\"},\"object\":{\"x\":1},\"unknown\":[{}]}";
        _cleanup_(target_done) Target t = { .text = strdup("old") };
        _cleanup_json_ json_t *v = NULL, *env = NULL, *list = NULL;

        ASSERT_OK(json_parse_text(text, strlen(text), &v, NULL));
        ASSERT_OK(json_dispatch(v, fields, &t, NULL));
        ASSERT_EQ(t.small, 32);
        ASSERT_EQ(t.large, INT64_MAX);
        ASSERT_EQ(t.scaled, 128 * MIB);
        ASSERT_EQ(t.any, -5);
        ASSERT_TRUE(t.flag);
        ASSERT_STREQ(t.text, "12345678");
        ASSERT_STREQ(t.name, "ab");
        ASSERT_EQ(strv_length(t.list), 3);
        ASSERT_STREQ(t.list[0], "abcd");
        ASSERT_STREQ(t.list[1], "");
        ASSERT_EQ(strv_length(t.map), 2);
        ASSERT_STREQ(t.map[0], "A=1=2");
        ASSERT_STREQ(t.map[1], "B=");
        ASSERT_EQ(json_object_size(t.object), 1);

        /* and back */
        env = json_from_env(t.map);
        list = json_from_strv(t.list);
        ASSERT_TRUE(json_equal(env, json_object_get(v, "map")));
        ASSERT_TRUE(json_equal(list, json_object_get(v, "list")));

        /* again over what is there; null and 0 leave it */
        json_decref(v);
        v = json_pack("{s:n, s:i, s:[s]}", "text", "small", 0, "list", "z");
        ASSERT_OK(json_dispatch(v, fields, &t, NULL));
        ASSERT_STREQ(t.text, "12345678");
        ASSERT_EQ(t.small, 32);
        ASSERT_EQ(strv_length(t.list), 1);
}

TEST(parse_text) {
        static const struct {
                const char *text, *message;
        } cases[] = {
                { "", "invalid JSON body: line 1, column 0: '[' or '{' expected near end of file." },
                { "[]", "invalid JSON body: expected an object." },
                { "1", "invalid JSON body: line 1, column 1: '[' or '{' expected near '1'." },
                { "{\"a\":1", "invalid JSON body: line 1, column 6: '}' expected near end of file." },
                { "{\"a\":1,\"a\":2}",
                  "invalid JSON body: line 1, column 10: duplicate object key near '\"a\"'." },
                { "{\"a\":1}x", "invalid JSON body: line 1, column 8: end of file expected near 'x'." },
        };
        char deep[2 * JSON_DEPTH_MAX + 64];
        _cleanup_json_ json_t *v = NULL;

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;

                ASSERT_EQ(json_parse_text(cases[i].text, strlen(cases[i].text), &v, &fault), -EINVAL);
                ASSERT_NULL(v);
                ASSERT_FAULT(fault, FAULT_INVALID_ARGS, cases[i].message);
        }

        for (size_t depth = JSON_DEPTH_MAX; depth <= JSON_DEPTH_MAX + 1; depth++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                _cleanup_json_ json_t *nested = NULL;
                char *p = stpcpy(deep, "{\"[{\\\"[\":");

                /* the braces inside the name do not count */
                for (size_t i = 1; i < depth; i++)
                        *p++ = '[';
                for (size_t i = 1; i < depth; i++)
                        *p++ = ']';
                strcpy(p, "}");

                if (depth <= JSON_DEPTH_MAX)
                        ASSERT_OK(json_parse_text(deep, strlen(deep), &nested, &fault));
                else {
                        ASSERT_EQ(json_parse_text(deep, strlen(deep), &nested, &fault), -EINVAL);
                        ASSERT_FAULT(fault, FAULT_INVALID_ARGS,
                                     "invalid JSON body: more than 32 levels deep.");
                }
        }
}

TEST(not_an_object) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_json_ json_t *v = json_array();
        Target t = {};

        ASSERT_EQ(json_dispatch(v, fields, &t, &fault), -EINVAL);
        ASSERT_FAULT(fault, FAULT_INVALID_ARGS, "Expected a JSON object.");
}
