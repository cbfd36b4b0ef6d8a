/**
 * Conversations that both servers are led through. A line is a command, its words separated by spaces; `''` is the empty
 * word, `\xHH` a byte; `2> ` is said by a second client.
 */
export type Script = string;

export const COMMAND_SCRIPT: Script = String.raw`
  GET a
  SET a 1
  GET a
  get a
  gEt a
  SET a 2 NX
  SET b 2 NX
  SET c 3 XX
  SET a 3 XX
  SET a 4 xx get
  SET d 4 GET
  SET d 5 NX GET
  SET e 5 NX GET
  GET e
  SET f 5 XX GET
  GET f
  SET a 5 GET GET
  SET a '' GET
  SET a 1 NX NX
  SET g 1 EX 100 NX
  SET g 2 NX EX 100
  SET g 2 XX KEEPTTL
  SET g 3 KEEPTTL KEEPTTL
  SET g 3 EX 100 EX 200
  SET h 1 EXAT 1
  GET h
  SET h 1 PXAT 1 GET
  EXISTS h
  SET h 2 PX 100000 GET
  SETNX a 9
  SETNX i 9
  SETNX i 8
  SETEX j 100 v
  GET j
  PSETEX j 100000 w
  GET j
  GETSET a new
  GETSET k new
  GETSET j gone
  TTL j
  GETDEL k
  GETDEL k
  GETEX a
  GETEX absent
  GETEX absent EX 0
  GETEX absent EX 10
  GETEX a EX 100
  GETEX a PERSIST
  TTL a
  GETEX a EXAT 1
  GET a
  GETEX g PXAT 1
  EXISTS g
  MSET a 1 b 2 a 3
  MGET a b c
  MGET a a
  MGET absent
  MSET a 1
  MSETNX a 5 zz 6
  EXISTS zz
  MSETNX l 1 m 2
  MSETNX l2 1
  MSETNX l2 2
  MSETNX n 1 n 2
  GET n
  DEL n l2
  DEL a a absent
  EXISTS a
  EXISTS b b absent b
  TOUCH b absent
  UNLINK b l m
  DEL absent
  STRLEN absent
  SET a hello
  STRLEN a
  SET a ''
  STRLEN a
  GET a
  EXISTS a
  INCR number
  INCR number
  INCRBY number 40
  DECR number
  DECRBY number 11
  DECRBY number -11
  INCRBY number -100
  GET number
  SET number 9223372036854775806
  INCR number
  INCR number
  DECRBY number 9223372036854775807
  SET number -9223372036854775808
  DECR number
  INCRBY number 9223372036854775807
  SET number 012
  INCR number
  SET number +1
  INCR number
  SET number 1\x20
  INCR number
  SET number ''
  INCR number
  SET number -0
  INCR number
  SET number 10 EX 100
  INCR number
  PERSIST number
  PERSIST number
  PERSIST absent
  SET number 1
  TYPE number
  TYPE absent
  TTL number
  TTL absent
  PTTL number
  PTTL absent
  EXPIRETIME number
  EXPIRETIME absent
  PEXPIRETIME number
  PEXPIRETIME absent
  EXPIRE absent 10
  EXPIRE number 10
  EXPIRE number 10 NX
  EXPIRE number 20 XX
  EXPIRE number 15 GT
  EXPIRE number 15 LT
  EXPIRE number 15 XX LT
  EXPIRE number 30 gt
  PERSIST number
  EXPIRE number 10 XX
  EXPIRE number 10 GT
  EXPIRE number 10 LT
  PERSIST number
  EXPIRE number 10 NX
  EXPIRE absent 10 NX
  EXPIRE number -1 GT
  EXISTS number
  EXPIRE number 0
  EXISTS number
  SET number 1
  PEXPIRE number -5
  GET number
  SET number 1
  EXPIREAT number 1
  GET number
  SET number 1
  PEXPIREAT number 1
  GET number
  SET number 1
  EXPIRE number -100 XX
  EXPIRE number -100 LT
  GET number
  GETRANGE absent 0 -1
  SET a hello
  GETRANGE a 0 -1
  GETRANGE a 1 3
  GETRANGE a -3 -2
  GETRANGE a 3 1
  GETRANGE a -1 -3
  GETRANGE a 0 100
  GETRANGE a 10 20
  GETRANGE a -100 2
  GETRANGE a -100 -50
  SET \x00\xff\x0d\x0a \x00\xfe\x0d\x0a
  GET \x00\xff\x0d\x0a
  SET '' empty
  GET ''
  DEL ''
  PING
  PING hello
  PING \x00\xff
  ECHO hello
  ECHO ''
  SELECT 0
  SELECT 99
  SELECT x
  SELECT -1
  CLIENT GETNAME
  CLIENT SETNAME me
  CLIENT GETNAME
  client setname ''
  CLIENT GETNAME
  CLIENT NO-EVICT ON
  CLIENT NO-EVICT off
  CONFIG GET save
  CONFIG GET SAVE
  CONFIG GET no-such-thing
  CONFIG GET maxmemory
  CONFIG RESETSTAT
  WAIT 0 10
  WAIT 0 0
  COMMAND GETKEYS GET a
  COMMAND GETKEYS MSET a 1 b 2
  COMMAND GETKEYS DEL a b c
  COMMAND INFO no-such-command
  COMMAND DOCS no-such-command
  RESET
  CLIENT GETNAME
`;

export const TRANSACTION_SCRIPT: Script = String.raw`
  MULTI
  EXEC
  MULTI
  DISCARD
  MULTI
  SET a 1
  GET a
  INCR a
  MGET a b
  DEL a absent
  EXISTS a
  EXEC
  MULTI
  MULTI
  SET a 1
  EXEC
  GET a
  MULTI
  WATCH a
  SET a 2
  EXEC
  GET a
  MULTI
  FOO
  SET a 3
  EXEC
  GET a
  MULTI
  GET
  EXEC
  MULTI
  SET a 4
  DISCARD
  GET a
  EXEC
  DISCARD
  MULTI
  SET a word
  INCR a
  SET a 1 EX 0
  EXPIRE a x
  SET b 2 NX
  SET b 3 NX
  GET b
  SETNX c 1
  GETSET c 2
  GETDEL c
  GETEX b EX 100
  PERSIST b
  TTL b
  TYPE b
  STRLEN a
  APPENDIX
  EXEC
  MULTI
  SET a word
  INCR a
  SET a 1 EX 0
  EXPIRE a x
  SET b 2 NX
  SET b 3 NX
  GET b
  SETNX c 1
  GETSET c 2
  GETDEL c
  GETEX b EX 100
  PERSIST b
  PERSIST b
  EXPIRE b 100
  EXPIRE absent 100
  TYPE b
  STRLEN a
  MSETNX one 1
  GETRANGE a 0 1
  SET a 5 GET
  PING
  ECHO hello
  SELECT 0
  SELECT 99
  CLIENT SETNAME x
  CLIENT GETNAME
  WAIT 0 0
  MSET x 1 y
  MSET x 1 y 2
  EXEC
  CLIENT GETNAME
  DEL one x y
  # Watches that hold, and that do not.
  WATCH a
  MULTI
  SET a 1
  EXEC
  WATCH a
  2> SET a 2
  MULTI
  SET a 3
  EXEC
  GET a
  WATCH a b
  2> SET b 2
  MULTI
  PING
  EXEC
  WATCH a
  2> SET a 2
  UNWATCH
  MULTI
  SET a 4
  EXEC
  GET a
  WATCH absent
  MULTI
  SET absent 1
  EXEC
  DEL absent
  WATCH absent
  2> SET absent 1
  MULTI
  SET absent 2
  EXEC
  GET absent
  WATCH absent
  2> DEL absent
  MULTI
  SET absent 3
  EXEC
  GET absent
  WATCH absent
  2> DEL absent
  MULTI
  GET a
  EXEC
  WATCH a
  SET a 5
  MULTI
  SET a 6
  EXEC
  GET a
  WATCH a
  WATCH a
  2> EXPIRE a 100
  MULTI
  SET a 7
  EXEC
  PERSIST a
  WATCH a
  2> PERSIST a
  2> GET a
  MULTI
  SET a 8
  EXEC
  GET a
  WATCH a
  MULTI
  DISCARD
  2> SET a 9
  MULTI
  GET a
  EXEC
  WATCH a
  2> SET a 10
  RESET
  MULTI
  GET a
  EXEC
  WATCH a
  2> SET a 11
  MULTI
  FOO
  EXEC
  MULTI
  GET a
  EXEC
  # Two transactions side by side.
  MULTI
  2> MULTI
  SET t 1
  2> SET t 2
  GET t
  2> GET t
  2> EXEC
  EXEC
  GET t
  MULTI
  UNWATCH
  RESET
  EXEC
  MULTI
  DISCARD x
  EXEC
  MULTI
  EXEC x
  EXEC
  MULTI
  AUTH a
  PING
  EXEC
`;
