/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Forms as clients send them and as they should not, cut at every byte and taken in small pieces. */

#include "basic/strings.h"
#include "rest/multipart.h"
#include "tests/unit/test.h"

#define TYPE "multipart/form-data; boundary=b0"
#define PATH "--b0\r\nContent-Disposition: form-data; name=\"path\"\r\n\r\n/x\r\n"
#define FILE_HEAD                                                                        \
        "--b0\r\nContent-Disposition: form-data; name=\"file\"; filename=\"upload\"\r\n" \
        "Content-Type: application/octet-stream\r\n\r\n"
#define PART(name) "--b0\r\nContent-Disposition: form-data; name=" name "\r\n\r\n"

/* What came out: "<name[*]>contents;" a part, '.' at the end; the message of a fault behind '!'. */
typedef struct Record {
        char text[16384];
        size_t n;
} Record;

static void record(Record *r, const char *data, size_t n) {
        ASSERT_TRUE(r->n + n < sizeof(r->text));
        memcpy(r->text + r->n, data, n);
        r->n += n;
        r->text[r->n] = '\0';
}

static void record_event(Record *r, const Multipart *m, MultipartEvent event, const char *data, size_t n) {
        switch (event) {
        case MULTIPART_PART:
                record(r, "<", 1);
                record(r, m->name, strlen(m->name));
                record(r, m->has_filename ? "*>" : ">", m->has_filename ? 2 : 1);
                break;
        case MULTIPART_DATA:
                record(r, data, n);
                break;
        case MULTIPART_PART_END:
                record(r, ";", 1);
                break;
        case MULTIPART_END:
                record(r, ".", 1);
                break;
        case MULTIPART_MORE:
                break;
        }
}

static int feed(Multipart *m, Record *r, const char *text, size_t n, size_t max, Fault *reterr) {
        MultipartEvent event;
        size_t i = 0;

        do {
                const char *data;
                size_t n_data;
                ssize_t k = multipart_next(m, text + i, n - i, max, &event, &data, &n_data, reterr);

                if (k < 0)
                        return (int) k;
                ASSERT_TRUE((size_t) k <= n - i && n_data <= max);
                ASSERT_TRUE(event != MULTIPART_MORE || (size_t) k == n - i);
                i += (size_t) k;
                record_event(r, m, event, data, n_data);
        } while (event != MULTIPART_MORE);
        return 0;
}

/* text in pieces: cut once at `cut` and then every `piece` bytes. */
static void read_form(const char *text, size_t n, size_t cut, size_t piece, size_t max, Record *r) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_(multipart_done) Multipart m = {};
        int k;

        *r = (Record) {};
        ASSERT_OK(multipart_init(&m, TYPE, &fault));
        k = feed(&m, r, text, cut, max, &fault);
        for (size_t i = cut; k >= 0 && i < n; i += piece)
                k = feed(&m, r, text + i, MIN(piece, n - i), max, &fault);
        if (k >= 0)
                k = multipart_finish(&m, &fault);
        if (k < 0) {
                ASSERT_EQ(fault.code, FAULT_INVALID_ARGS);
                record(r, "!", 1);
                record(r, fault.message, strlen(fault.message));
        }
}

static void expect(const char *text, size_t n, const char *expected) {
        Record r;

        for (size_t cut = 0; cut <= n; cut++) {
                read_form(text, n, cut, n, SIZE_MAX, &r);
                if (!streq(r.text, expected))
                        fail_msg("cut at %zu: '%s', expected '%s'", cut, r.text, expected);
        }
        for (size_t piece = 1; piece <= 9; piece++)
                for (size_t max = 1; max <= 3; max++) {
                        read_form(text, n, 0, piece, max, &r);
                        if (!streq(r.text, expected))
                                fail_msg("pieces of %zu: '%s', expected '%s'", piece, r.text, expected);
                }
}

#define BAD(what) "!malformed multipart body: " what "."

TEST(forms_cut_anywhere) {
        static const struct {
                const char *text, *expected;
        } cases[] = {
                { PATH FILE_HEAD "hello world\r\n--b0--\r\n", "<path>/x;<file*>hello world;." },
                { FILE_HEAD "a\r\n" PATH "--b0--", "<file*>a;<path>/x;." },
                { FILE_HEAD "\r\n--b0--\r\n", "<file*>;." },
                { "preamble\r\n--b\r\n" PATH "--b0--\r\nepilogue\r\n--b0\r\n", "<path>/x;." },
                { "\r\n" PATH "--b0--", "<path>/x;." },
                { "--b0--", "." },
                { "--b0 \t\r\n"
                  "Content-disposition:form-data;name=x\r\n\r\ny\r\n--b0--",
                  "<x>y;." },

                /* what looks like a delimiter and is none */
                { FILE_HEAD "\r\r\n\r\n-\r\n--\r\n--b\r\n--b1--b0\n--b0\r\n--b0--",
                  "<file*>\r\r\n\r\n-\r\n--\r\n--b\r\n--b1--b0\n--b0;." },
                { FILE_HEAD "--b0\r\n--b0--", "<file*>--b0;." },
                { FILE_HEAD "\r\n-\r\n-\r\r\n--b\r\n\r\n--b0--", "<file*>\r\n-\r\n-\r\r\n--b\r\n;." },

                /* names */
                { PART("a;filename=\"\"") "\r\n--b0--", "<a*>;." },
                { PART("\"a b\"") "\r\n--b0--", "<a b>;." },
                { PART("\"a\\\"\\\\;\"; x=\"y;z\"") "\r\n--b0--", "<a\"\\;>;." },
                { PART("\"\"") "\r\n--b0--", "<>;." },
                { PART("ä") "\r\n--b0--", "<ä>;." },
                { "--b0\r\nX: y\r\nContent-Transfer-Encoding: Binary \r\ncontent-disposition: Form-Data; NAME=a\r\n\r\n"
                  "\r\n--b0--",
                  "<a>;." },

                /* what is wrong */
                { "", BAD("it ends before its last delimiter") },
                { PATH, "<path>/x" BAD("it ends before its last delimiter") },
                { "--b0-", BAD("it ends before its last delimiter") },
                { PATH "--b0x", "<path>/x;" BAD("text behind a delimiter") },
                { PATH "--b0 --", "<path>/x;" BAD("text behind a delimiter") },
                { PATH "--b0-x", "<path>/x;" BAD("text behind a delimiter") },
                { "--b0\rx", BAD("lines must end in CR LF") },
                { "--b0\nx", BAD("text behind a delimiter") },
                { "--b0\r\n\r\nx\r\n--b0--", BAD("a part has no Content-Disposition header") },
                { "--b0\r\nX: y\r\n\r\n", BAD("a part has no Content-Disposition header") },
                { PART("a\r\nContent-Disposition: form-data; name=b") "\r\n--b0--",
                  BAD("a part has two Content-Disposition headers") },
                { "--b0\r\nContent-Disposition: attachment; name=a\r\n\r\n", BAD("a part is no form-data") },
                { "--b0\r\nContent-Disposition: form-data\r\n\r\n", BAD("a part has no name") },
                { PART("a; name=b"), BAD("a parameter of Content-Disposition stands twice") },
                { PART("a; filename=x; FileName=y"),
                  BAD("a parameter of Content-Disposition stands twice") },
                { PART("a b"), BAD("a wrong Content-Disposition") },
                { PART("\"a"), BAD("a wrong Content-Disposition") },
                { PART("\"a\\"), BAD("a wrong Content-Disposition") },
                { PART("; x=y"), BAD("a wrong Content-Disposition") },
                { PART("a; x"), BAD("a wrong Content-Disposition") },
                { "--b0\r\nContent-Transfer-Encoding: base64\r\n\r\n", BAD("parts must not be encoded") },
                { "--b0\r\nContent-Disposition: form-data;\r\n name=a\r\n\r\n",
                  BAD("a wrong Content-Disposition") },
                { "--b0\r\nX: a\r\n y\r\n\r\n", BAD("a wrong header line in a part") },
                { "--b0\r\nX\r\n\r\n", BAD("a wrong header line in a part") },
                { "--b0\r\n: y\r\n\r\n", BAD("a wrong header line in a part") },
                { "--b0\r\nX : y\r\n\r\n", BAD("a wrong header line in a part") },
                { "--b0\r\nX: \ny\r\n\r\n", BAD("a wrong header line in a part") },
                { "--b0\r\nX: \ry\r\n\r\n", BAD("a wrong header line in a part") },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++)
                expect(cases[i].text, strlen(cases[i].text), cases[i].expected);
}

TEST(boundaries) {
        static const struct {
                const char *type, *message;
        } cases[] = {
                { "multipart/form-data; boundary=x", NULL },
                { "Multipart/Form-Data ;charset=utf-8; BOUNDARY=\"a b\"", NULL },
                { "multipart/form-data; boundary=8f0c0123456789abcdef0123456789ab", NULL },
                { "multipart/form-data; boundary="
                  "0123456789012345678901234567890123456789012345678901234567890123456789",
                  NULL },
                { "multipart/form-data; boundary="
                  "01234567890123456789012345678901234567890123456789012345678901234567890",
                  "the multipart boundary must be one of 1 to 70 characters." },
                { "multipart/form-data; boundary=\"a \"",
                  "the multipart boundary must be one of 1 to 70 characters." },
                { "multipart/form-data; boundary=\"\"",
                  "the multipart boundary must be one of 1 to 70 characters." },
                { "multipart/form-data; boundary=a; boundary=a",
                  "the multipart boundary must be one of 1 to 70 characters." },
                { "multipart/form-data; boundary=a[",
                  "the multipart boundary must be one of 1 to 70 characters." },
                { "multipart/form-data", "the Content-Type has no multipart boundary." },
                { "multipart/form-data; boundary=", "the Content-Type has no multipart boundary." },
                { "multipart/form-data; boundary", "the Content-Type has no multipart boundary." },
                { "multipart/form-data; boundary=\"a", "the Content-Type has no multipart boundary." },
                { NULL, "expected a body of type multipart/form-data with the fields path and file." },
                { "application/json; boundary=a",
                  "expected a body of type multipart/form-data with the fields path and file." },
                { "multipart/mixed; boundary=a",
                  "expected a body of type multipart/form-data with the fields path and file." },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                _cleanup_(multipart_done) Multipart m = {};
                int r = multipart_init(&m, cases[i].type, &fault);

                ASSERT_EQ(r, cases[i].message ? -EINVAL : 0);
                ASSERT_STREQ(fault.message, cases[i].message);
        }
}

/* prefix, n times fill, suffix, read in one piece. */
static void read_filled(const char *prefix, size_t n, char fill, const char *suffix, Record *r) {
        size_t n_prefix = strlen(prefix), n_suffix = strlen(suffix);
        _cleanup_free_ char *text = malloc(n_prefix + n + n_suffix + 1);

        ASSERT_NOT_NULL(text);
        memcpy(text, prefix, n_prefix);
        memset(text + n_prefix, fill, n);
        memcpy(text + n_prefix + n, suffix, n_suffix + 1);
        read_form(text, n_prefix + n + n_suffix, 0, 4096, SIZE_MAX, r);
}

TEST(limits) {
        static const char head[] = "--b0\r\nX: ", name[] = "--b0\r\nContent-Disposition: form-data; name=";
        size_t n_rest = strlen("X: \r\nContent-Disposition: form-data; name=a\r\n\r\n");
        static const char rest[] = "\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n--b0--";
        char many[(MULTIPART_PARTS_MAX + 1) * 64] = "";
        Record r;

        read_filled(head, MULTIPART_HEADERS_MAX - n_rest, 'y', rest, &r);
        ASSERT_STREQ(r.text, "<a>;.");
        read_filled(head, MULTIPART_HEADERS_MAX - n_rest + 1, 'y', rest, &r);
        ASSERT_STREQ(r.text, BAD("the head of a part is too large"));

        read_filled(name, MULTIPART_NAME_MAX, 'n', "\r\n\r\n\r\n--b0--", &r);
        ASSERT_EQ(r.n, MULTIPART_NAME_MAX + 4);
        read_filled(name, MULTIPART_NAME_MAX + 1, 'n', "\r\n\r\n\r\n--b0--", &r);
        ASSERT_STREQ(r.text, BAD("the name of a field is too long"));

        read_filled("", MULTIPART_HEADERS_MAX - 2, 'x', "\r\n--b0--", &r);
        ASSERT_STREQ(r.text, ".");
        read_filled("", MULTIPART_HEADERS_MAX - 1, '\r', "\r\n--b0--", &r);
        ASSERT_STREQ(r.text, BAD("too much text outside of the parts"));
        read_filled("--b0--", MULTIPART_HEADERS_MAX, 'x', "", &r);
        ASSERT_STREQ(r.text, ".");
        read_filled("--b0--", MULTIPART_HEADERS_MAX + 1, 'x', "", &r);
        ASSERT_STREQ(r.text, "." BAD("too much text outside of the parts"));
        read_filled("--b0", MULTIPART_HEADERS_MAX + 1, ' ', "\r\n", &r);
        ASSERT_STREQ(r.text, BAD("too much text outside of the parts"));

        for (unsigned i = 0; i < MULTIPART_PARTS_MAX; i++)
                strcat(many, PART("a") "\r\n");
        read_filled(many, 0, ' ', "--b0--", &r);
        ASSERT_EQ(r.n, MULTIPART_PARTS_MAX * 4 + 1);
        read_filled(many, 0, ' ', PART("a") "\r\n", &r);
        ASSERT_STREQ(r.text + MULTIPART_PARTS_MAX * 4, BAD("too many parts"));
}

TEST(nothing_is_taken_without_room) {
        static const char text[] = FILE_HEAD "abc";
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_(multipart_done) Multipart m = {};
        MultipartEvent event;
        const char *data;
        size_t n, at;

        ASSERT_OK(multipart_init(&m, TYPE, &fault));
        at = (size_t) multipart_next(&m, text, strlen(text), 0, &event, &data, &n, &fault);
        ASSERT_EQ(event, MULTIPART_PART);
        ASSERT_EQ(multipart_next(&m, text + at, strlen(text + at), 0, &event, &data, &n, &fault), 0);
        ASSERT_EQ(event, MULTIPART_DATA);
        ASSERT_EQ(n, 0);
        ASSERT_EQ(multipart_next(&m, text + at, strlen(text + at), 2, &event, &data, &n, &fault), 2);
        ASSERT_EQ(n, 2);
        ASSERT_TRUE(memcmp(data, "ab", 2) == 0);
}
