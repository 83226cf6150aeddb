// SPDX-License-Identifier: Apache-2.0
package io.getkloak.agent;

import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.BufferUnderflowException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;

/**
 * Lets calls of one method of a class file go to static methods of another class, which are given the object as their first
 * argument. An instruction is as long as before and leaves the stack as before, so nothing else of the class changes but its
 * pool of constants, which grows at its end (JVMS 4).
 */
final class CallRewriter {
    private static final int UTF8 = 1;
    private static final int CLASS = 7;
    private static final int METHOD = 10;
    private static final int NAME_AND_TYPE = 12;
    private static final int INVOKE_VIRTUAL = 0xb6;
    private static final int INVOKE_STATIC = 0xb8;
    private static final int TABLE_SWITCH = 0xaa;
    private static final int LOOKUP_SWITCH = 0xab;
    private static final int WIDE = 0xc4;
    private static final int IINC = 0x84;
    /** Bytes of each instruction from 0x00 to 0xc9; 0: of no fixed length (JVMS 6.5). */
    private static final String LENGTHS = "1111111111111111" // constants
            + "2323322222111111" // bipush, loads
            + "1".repeat(0x36 - 0x20)
            + "22222" // stores
            + "1".repeat(0x84 - 0x3b)
            + "3" // iinc
            + "1".repeat(0x99 - 0x85)
            + "3333333333333333" + "2" // branches, ret
            + "00" + "111111" // switches, returns
            + "33333333" + "355" + "3" + "2" + "3" + "11" + "33" + "11" // fields, calls, objects
            + "0" + "4" + "33" + "55"; // wide, multianewarray, ifnull, goto_w

    private final byte[] bytes;
    private final int count;
    /** By index: where the entry's tag stands. */
    private final int[] places;
    private final int end;

    /** A method of an object that is called. */
    record Call(String owner, String name, String descriptor) {
        /** As a static method takes it. */
        String asStatic() {
            return "(L" + owner + ";" + descriptor.substring(1);
        }
    }

    CallRewriter(byte[] original) {
        bytes = original.clone();
        count = unsigned(8);
        places = new int[count];
        int at = 10;
        for (int index = 1; index < count; index++) {
            places[index] = at;
            int tag = bytes[at];
            at += sizeOf(at);
            if (tag == 5 || tag == 6) index++; // long and double take two
        }
        end = at;
    }

    /**
     * The class with each of {@code calls}, which must stand once in {@code method}, made a call of {@code target}.
     *
     * @throws IllegalStateException the class is not as expected
     */
    byte[] rewrite(String method, Iterable<Call> calls, String target) {
        ByteArrayOutputStream added = new ByteArrayOutputStream();
        Map<Integer, Integer> replaced = new HashMap<>();
        int next = count;
        try {
            DataOutputStream out = new DataOutputStream(added);
            out.writeByte(UTF8);
            out.writeUTF(target);
            out.writeByte(CLASS);
            out.writeShort(next);
            int owner = next + 1;
            next += 2;
            for (Call call : calls) {
                out.writeByte(UTF8);
                out.writeUTF(call.name());
                out.writeByte(UTF8);
                out.writeUTF(call.asStatic());
                out.writeByte(NAME_AND_TYPE);
                out.writeShort(next);
                out.writeShort(next + 1);
                out.writeByte(METHOD);
                out.writeShort(owner);
                out.writeShort(next + 2);
                replaced.put(indexOf(call), next + 3);
                next += 4;
            }
        } catch (IOException impossible) {
            throw new UncheckedIOException(impossible);
        }
        int changed = changeCode(method, replaced);
        if (changed != replaced.size()) throw new IllegalStateException(changed + " calls in " + method);
        ByteBuffer result = ByteBuffer.allocate(bytes.length + added.size());
        result.put(bytes, 0, end).put(added.toByteArray()).put(bytes, end, bytes.length - end);
        return result.putShort(8, (short) next).array();
    }

    /** Returns how many calls it has changed. */
    private int changeCode(String method, Map<Integer, Integer> replaced) {
        int changed = 0;
        int at = end + 6;
        at += 2 + 2 * unsigned(at);
        for (int kind = 0; kind < 2; kind++) { // fields, then methods
            int members = unsigned(at);
            at += 2;
            for (int member = 0; member < members; member++) {
                boolean here = kind == 1 && text(unsigned(at + 2)).equals(method);
                int attributes = unsigned(at + 6);
                at += 8;
                for (int attribute = 0; attribute < attributes; attribute++) {
                    if (here && text(unsigned(at)).equals("Code")) changed += changeCalls(at + 14, word(at + 10), replaced);
                    at += 6 + word(at + 2);
                }
            }
        }
        return changed;
    }

    private int changeCalls(int start, int length, Map<Integer, Integer> replaced) {
        int changed = 0;
        int at = start;
        while (at < start + length) {
            Integer replacement = (bytes[at] & 0xff) == INVOKE_VIRTUAL ? replaced.get(unsigned(at + 1)) : null;
            if (replacement != null) {
                bytes[at] = (byte) INVOKE_STATIC;
                bytes[at + 1] = (byte) (replacement >> 8);
                bytes[at + 2] = (byte) (int) replacement;
                changed++;
            }
            at += instructionLength(start, at);
        }
        if (at != start + length) throw new IllegalStateException("its code is not understood");
        return changed;
    }

    private int instructionLength(int start, int at) {
        int opcode = bytes[at] & 0xff;
        int aligned = at + 4 - (at - start) % 4;
        switch (opcode) {
            case TABLE_SWITCH:
                return aligned - at + 12 + 4 * (word(aligned + 8) - word(aligned + 4) + 1);
            case LOOKUP_SWITCH:
                return aligned - at + 8 + 8 * word(aligned + 4);
            case WIDE:
                return (bytes[at + 1] & 0xff) == IINC ? 6 : 4;
            default:
                if (opcode >= LENGTHS.length()) throw new IllegalStateException("its code is not understood");
                return LENGTHS.charAt(opcode) - '0';
        }
    }

    private int indexOf(Call call) {
        for (int index = 1; index < count; index++) {
            int at = places[index];
            if (at == 0 || bytes[at] != METHOD) continue;
            int kind = places[unsigned(at + 3)];
            if (text(unsigned(places[unsigned(at + 1)] + 1)).equals(call.owner())
                    && text(unsigned(kind + 1)).equals(call.name())
                    && text(unsigned(kind + 3)).equals(call.descriptor())) return index;
        }
        throw new IllegalStateException("no call of " + call.name() + call.descriptor());
    }

    /** Of an entry of the pool, with its tag. */
    private int sizeOf(int at) {
        switch (bytes[at]) {
            case UTF8:
                return 3 + unsigned(at + 1);
            case 3, 4, 9, METHOD, 11, NAME_AND_TYPE, 17, 18:
                return 5;
            case 5, 6:
                return 9;
            case CLASS, 8, 16, 19, 20:
                return 3;
            case 15:
                return 4;
            default:
                throw new IllegalStateException("its constants are not understood");
        }
    }

    private String text(int index) {
        int at = places[index];
        return new String(bytes, at + 3, unsigned(at + 1), StandardCharsets.UTF_8);
    }

    private int unsigned(int at) {
        return (bytes[at] & 0xff) << 8 | bytes[at + 1] & 0xff;
    }

    private int word(int at) {
        return unsigned(at) << 16 | unsigned(at + 2);
    }
}
