/// <reference types="node" />

/** Options of {@link join}. */
export interface JoinOptions {
  /** Names the bus, together with the effective user: 1 to 4,096 bytes without NUL, such as `com.example.app.1`. */
  identifier: string;
  /** What selectors are matched against: at most 64 strings of at most 256 bytes. */
  label: string[];
  /** A secret that all endpoints of the bus share; it is proved, never sent. Empty for none. */
  token: string;
  /** Whether this endpoint may host the controller. Default true. */
  controllerAffinity?: boolean;
  /**
   * The largest payload in bytes, sent or received. Default 1 GiB. One that comes from an endpoint with a higher limit is
   * skipped: `IPMB_DECODE`.
   */
  maxPayload?: number;
  /** Bytes of ring for each link from this endpoint: a power of two from 64 KiB to 64 MiB. Default 1 MiB. */
  linkCapacity?: number;
  /** Bytes that {@link Sender.send} lets wait for one receiver whose link is full, copied buffers included. Default 64 MiB. */
  outboundQueue?: number;
  /** Meet at an absolute path of at most 100 bytes in place of an abstract name. Not on Windows: `IPMB_IO`. */
  path?: string;
}

/** What earlier versions call {@link JoinOptions}. */
export type Options = JoinOptions;

/**
 * Joins a bus. Blocks until it has, at most for `timeout` milliseconds; without one for as long as it takes.
 * @throws an {@link IpmbError}: `IPMB_TIMEOUT`, `IPMB_TOKEN_MISMATCH`, `IPMB_VERSION_MISMATCH`, `IPMB_PERMISSION_DENIED`,
 * `IPMB_CONTROLLER_STOPPED`, `IPMB_BUS_FULL`, `IPMB_INVALID_IDENTIFIER`, `IPMB_INVALID_OPTION`, `IPMB_EXHAUSTED`, …
 */
export function join(options: JoinOptions, timeout?: number | null): { sender: Sender; receiver: Receiver };

/** Joins a bus without blocking the event loop. A join that waits keeps the process running. Rejected as {@link join} throws. */
export function joinAsync(options: JoinOptions, timeout?: number | null): Promise<{ sender: Sender; receiver: Receiver }>;

/** The version of the library. */
export function version(): string;

/** What calls throw and promises are rejected with; of an abort, the signal's reason instead. */
export interface IpmbError extends Error {
  code: IpmbErrorCode;
}

export type IpmbErrorCode =
  | 'IPMB_BUS_FULL'
  | 'IPMB_BUSY'
  | 'IPMB_CLOSED'
  | 'IPMB_CONTROLLER_STOPPED'
  | 'IPMB_DECODE'
  | 'IPMB_EMPTY'
  | 'IPMB_ENCODE'
  | 'IPMB_EXHAUSTED'
  | 'IPMB_FORKED'
  | 'IPMB_FROZEN'
  | 'IPMB_FULL'
  | 'IPMB_INVALID_ARGUMENT'
  | 'IPMB_INVALID_IDENTIFIER'
  | 'IPMB_INVALID_OPTION'
  | 'IPMB_IO'
  | 'IPMB_LEFT'
  | 'IPMB_LIMIT'
  | 'IPMB_NAME_SQUATTED'
  | 'IPMB_NOT_A_REGION'
  | 'IPMB_NOT_FROZEN'
  | 'IPMB_NO_EXTERNAL_BUFFERS'
  | 'IPMB_NO_NATIVE'
  | 'IPMB_OUT_OF_BOUNDS'
  | 'IPMB_PANIC'
  | 'IPMB_PERMISSION_DENIED'
  | 'IPMB_REGION_TOO_LARGE'
  | 'IPMB_SETTLING'
  | 'IPMB_TIMEOUT'
  | 'IPMB_TOKEN_MISMATCH'
  | 'IPMB_TOO_LARGE'
  | 'IPMB_TOO_MANY_ATTACHMENTS'
  | 'IPMB_UNSUPPORTED_HOST'
  | 'IPMB_UNSUPPORTED_SYSTEM'
  | 'IPMB_VERSION_MISMATCH';

/** An expression over labels: which endpoints a message is for. Its methods change it in place. */
export class LabelOp {
  /** Everybody, nobody, or those whose label has this part. */
  constructor(v: boolean | string);
  not(): void;
  /** `r` stays as it is. */
  and(r: LabelOp): void;
  /** `r` stays as it is. */
  or(r: LabelOp): void;
  toString(): string;
}

/** How many of the matching endpoints get a message: the one that joined first, or all. */
export enum SelectorMode {
  Unicast = 0,
  Multicast = 1,
}

/** Who gets a message. */
export interface Selector {
  labelOp: LabelOp;
  mode: SelectorMode;
  /**
   * For how many milliseconds the message is parked while nobody matches, to be given to the first that does: also that of a
   * multicast. 0: it is gone then.
   */
  ttl: number;
}

/** The payload that all languages share. */
export interface BytesMessage {
  /** 0 to 65,535; what it says of the data is the programs' own. */
  format: number;
  data: Buffer;
}

/** What travels besides the data. At most 253 objects, and 253 regions with the buffers. */
export interface Attachments {
  /** Objects, or descriptors as Node's `fs` numbers them; each receiver gets its own duplicate, the sender keeps its own. */
  objects?: (Object | number)[];
  /** Regions, behind those of the buffers; the sender keeps its own handle. */
  memoryRegions?: MemoryRegion[];
}

/** A received message. */
export interface Message {
  bytesMessage: BytesMessage;
  objects: Object[];
  memoryRegions: MemoryRegion[];
}

/** The sending half of an endpoint. No call blocks for more than the copy of the data. */
export class Sender {
  private constructor();
  /**
   * Sends a message. On a full link it is copied to the receiver's queue, which is sent in order as there is room.
   * `buffers` travel as memory regions: one that shows a whole region ({@link MemoryRegion.mapShared}) without a copy.
   * @throws `IPMB_FULL` if the queue would grow over its limit, or the messages from this endpoint to itself over theirs.
   */
  send(selector: Selector, bytesMessage: BytesMessage, buffers?: Buffer[] | null, attachments?: Attachments): void;
  /** Sends a message if that is possible at once. False: some receiver's link is full, and that one gets nothing. */
  trySend(selector: Selector, bytesMessage: BytesMessage, buffers?: Buffer[] | null, attachments?: Attachments): boolean;
  /**
   * Sends a message in the order of `send`, however long the queue is. Settled when it is in the links of its receivers. What
   * an endpoint has sent to itself and not received has a limit also here: `IPMB_FULL`.
   */
  sendAsync(selector: Selector, bytesMessage: BytesMessage, buffers?: Buffer[] | null, attachments?: Attachments): Promise<void>;
  /** Bytes that wait in queues. While there are any, the process does not end by itself. */
  readonly queued: number;
  /** Gives the half up, and discards messages still queued: wait until `queued` is 0 first. Doing it twice is fine. */
  close(): void;
}

/** The receiving half of an endpoint. */
export class Receiver implements AsyncIterable<Message> {
  private constructor();
  /**
   * The next message. Waits at most for `timeout` milliseconds, else for ever; a receive that waits keeps the process running
   * (see {@link Receiver.unref}). Rejected with `IPMB_TIMEOUT`, `IPMB_CLOSED`, `IPMB_DECODE` and others, or the signal's reason.
   */
  recv(timeout?: number | null, options?: { signal?: AbortSignal }): Promise<Message>;
  /** A message if there is one now and nobody waits before, else `null`. */
  tryRecv(): Message | null;
  /** The messages as they come; ends when the receiver is closed. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message>;
  /** Receives that wait no longer keep the process running. */
  unref(): this;
  /** Undoes {@link Receiver.unref}. */
  ref(): this;
  /** Gives the half up: what waits is rejected with `IPMB_CLOSED`, iterations end. Doing it twice is fine. */
  close(): void;
}

/**
 * What the kernel keeps for a process, on its way to another: a file descriptor, on Windows a HANDLE. Owned; closed by
 * {@link Object.close}, or when it is collected.
 *
 * Numbers are always descriptors as Node's `fs` has them. On Windows those are entries of a table of Node's own, which
 * has some for files, pipes and devices only. Of other handles (events, processes, …; on macOS, Mach ports that are no
 * files) there is no number, but they can be received, sent on and closed.
 */
export class Object {
  private constructor();
  /** A duplicate of a descriptor, which stays the caller's. `IPMB_IO` if it is not open. */
  static fromFd(fd: number): Object;
  /**
   * The descriptor's number. It stays owned by this object. On Windows the first call makes the descriptor, with a handle of its
   * own that is closed with the object; `IPMB_IO` if Node can have none.
   */
  value(): number;
  /** Gives the descriptor up to the caller, who must close it (`fs.closeSync`). Fails as {@link Object.value} does. */
  detach(): number;
  close(): void;
}

/** A handle of a memory that processes share. Given up by {@link MemoryRegion.close}, or when it is collected. */
export class MemoryRegion {
  /** `size` bytes, all zero. */
  constructor(size: number);
  readonly size: number;
  readonly frozen: boolean;
  /** A copy of some bytes; `size` −1 for all from `offset` on. */
  map(offset: number, size: number): Buffer;
  /**
   * The memory itself; by default all of it. Of a frozen region it is a private view (on Windows a copy): what is written to
   * it, nobody else sees. While a writable view is not collected, nobody can freeze the region.
   */
  mapShared(offset?: number, size?: number): Buffer;
  /** Copies bytes into the region. */
  write(data: Uint8Array, offset?: number): void;
  /** Makes the region immutable for everybody and for good. `IPMB_BUSY` while anybody has it mapped. */
  freeze(): void;
  /** How many handles there are in all processes, messages under way and views included. */
  refCount(): number;
  /** One more handle of the same memory. */
  clone(): MemoryRegion;
  close(): void;
}

/** Gives out regions and uses their memory again once nobody else holds them. */
export class MemoryRegistry {
  /** A region of at least `minSize` bytes; `free` is called by a later call to the registry once it is free. */
  alloc(minSize: number, tag?: string | null, free?: (() => void) | null): MemoryRegion;
  /** Calls what is due and gives idle memory back to the system. */
  maintain(): void;
  /** Forgets all regions, and calls all that is due then. */
  close(): void;
}
