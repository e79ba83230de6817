/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * wrennctl: the administrator's verbs over D-Bus. Each verb is a function of (Ctl, arguments) that returns
 * the exit status or a negative errno after having said why; calls are synchronous, a command line has
 * nothing better to do than wait.
 */

#include <jansson.h>
#include <systemd/sd-bus.h>

#include "basic/fault.h"
#include "basic/macro.h"
#include "ctl/options.h"

#define MANAGER_INTERFACE  BUS_NAME ".Manager"
#define CAPSULE_INTERFACE  BUS_NAME ".Capsule"
#define TEMPLATE_INTERFACE BUS_NAME ".Template"
#define JOB_INTERFACE      BUS_NAME ".Job"

/* A create or destroy may take longer than the bus library's 25 s. */
#define CTL_CALL_TIMEOUT_USEC (5 * 60 * USEC_PER_SEC)

/* Exit statuses besides those of fault_exit_status(): wrennctl(1). */
enum {
        EXIT_USAGE = 2,
        EXIT_NOT_RUNNING = 3,
        EXIT_UNKNOWN = 4,
        EXIT_COMMAND_TIMEOUT = 124,
        EXIT_DAEMON = 125,
};

typedef struct Ctl {
        sd_bus *bus; /* connected on first use by ctl_bus() */
        CtlOptions options;
        int agent_pid; /* of pkttyagent, 0 when none */
} Ctl;

typedef int (*CtlVerb)(Ctl *ctl, char **arguments); /* arguments: NULL-terminated, without the verb */

/* bus.c */

/* The system bus, and a polkit agent on the terminal for callers who are not root. 0 or -errno, logged. */
int ctl_bus(Ctl *ctl);
void ctl_done(Ctl *ctl);
/* A method call on BUS_NAME, with interactive authorization as asked. path NULL: the root object. */
int ctl_method(Ctl *ctl, const char *path, const char *interface, const char *member, sd_bus_message **ret);
/* Sends and waits. On failure prints "Failed to <what>: <message>" and returns the exit status of the error
 * (> 0), else 0. */
int ctl_send(Ctl *ctl, sd_bus_message *m, const char *what, sd_bus_message **ret);
/* Exit status for a failed call; prints the reason. */
int ctl_failed(const sd_bus_error *error, int r, const char *what);
/* "NAME=VALUE" strings as a{ss}. */
int bus_append_map(sd_bus_message *m, char *const *assignments);
/* One complete value to JSON: dictionaries with string keys become objects, structs and arrays arrays, 64
 * bit numbers integers. */
int bus_value_to_json(sd_bus_message *m, json_t **ret);
/* All properties of one interface. Exit status as ctl_send(). */
int ctl_properties(Ctl *ctl, const char *path, const char *interface, json_t **ret);
/* Objects with that interface: array of property objects with the member "Path". Exit status as ctl_send().
 */
int ctl_objects(Ctl *ctl, const char *interface, json_t **ret);
/* A method of that capsule's object. Exit status as ctl_send(). */
int ctl_capsule_method(Ctl *ctl, const char *id, const char *member, sd_bus_message **ret);
/* The object path of a capsule. Exit status as ctl_send(); EXIT_UNKNOWN for an unknown one. */
int ctl_capsule_path(Ctl *ctl, const char *id, char **ret);

/* Properties by name, with a default for what is missing. */
const char* property_string(json_t *o, const char *name);
uint64_t property_number(json_t *o, const char *name);

/* table.c */

typedef enum ColumnKind {
        COLUMN_TEXT,
        COLUMN_NUMBER,
        COLUMN_SIZE, /* bytes */
        COLUMN_TIME, /* CLOCK_REALTIME microseconds */
        COLUMN_BOOLEAN,
} ColumnKind;

typedef struct Column {
        const char *title;    /* "MEMORY" */
        const char *property; /* "MemoryBytes"; its lower-case form with '_' is the JSON member */
        ColumnKind kind;
} Column;

/* Prints rows (array of objects) as table or JSON; columns end with {}. noun: for "3 capsules listed.". 0 or
 * -errno. */
int table_print(const CtlOptions *options, json_t *rows, const Column *columns, const char *noun);
/* "MemoryBytes" -> "memory_bytes" into ret (n bytes). */
void property_to_member(const char *property, char *ret, size_t n);
/* One cell as a person reads it; owned by the caller, NULL on out of memory. Control characters are escaped.
 */
char* table_cell(json_t *row, const Column *column);
/* "label: value" lines of one object. 0 or -errno. */
int details_print(const CtlOptions *options, json_t *object, const Column *columns);

/* verbs */
int verb_list(Ctl *ctl, char **arguments);
int verb_status(Ctl *ctl, char **arguments);
int verb_create(Ctl *ctl, char **arguments);
int verb_destroy(Ctl *ctl, char **arguments);
int verb_ping(Ctl *ctl, char **arguments);
int verb_run(Ctl *ctl, char **arguments);
int verb_exec(Ctl *ctl, char **arguments);
int verb_shell(Ctl *ctl, char **arguments);
int verb_attach(Ctl *ctl, char **arguments);
int verb_ps(Ctl *ctl, char **arguments);
int verb_signal(Ctl *ctl, char **arguments);
int verb_logs(Ctl *ctl, char **arguments);
int verb_ls(Ctl *ctl, char **arguments);
int verb_cat(Ctl *ctl, char **arguments);
int verb_copy_to(Ctl *ctl, char **arguments);
int verb_copy_from(Ctl *ctl, char **arguments);
int verb_build_template(Ctl *ctl, char **arguments);
int verb_import_template(Ctl *ctl, char **arguments);
int verb_list_templates(Ctl *ctl, char **arguments);
int verb_remove_template(Ctl *ctl, char **arguments);
int verb_list_jobs(Ctl *ctl, char **arguments);
int verb_cancel_job(Ctl *ctl, char **arguments);
int verb_create_key(Ctl *ctl, char **arguments);
int verb_list_keys(Ctl *ctl, char **arguments);
int verb_revoke_key(Ctl *ctl, char **arguments);
int verb_doctor(Ctl *ctl, char **arguments);
int verb_version(Ctl *ctl, char **arguments);

/* capsules.c, for run: creates by the options. Exit status as ctl_send(). */
int capsule_create(Ctl *ctl, const char *template, char **ret_id, char **ret_path);
int capsule_destroy(Ctl *ctl, const char *id);

/* jobs.c: a template job from its start to its end, with progress. m: the method call that answers with the
 * job's path. */
int job_run(Ctl *ctl, sd_bus_message *m, const char *what);
/* A copy of name, with its bytes on a terminal; total_bytes 0: unknown. 0; EXIT_FAILURE with the service's
 * reason, owned by the caller; or another exit status after having said why. */
int job_run_copy(Ctl *ctl, sd_bus_message *m, const char *name, uint64_t total_bytes, char **ret_reason);
