/** The part of noVNC's RFB class that the page uses (@novnc/novnc 1.7.0, docs/API.md). */
interface RfbOptions {
  shared?: boolean;
}

interface Rfb extends EventTarget {
  addEventListener(type: string, act: (event: any) => void): void;
  viewOnly: boolean;
  scaleViewport: boolean;
  resizeSession: boolean;
  focusOnClick: boolean;
  showDotCursor: boolean;
  background: string;
  qualityLevel: number;
  compressionLevel: number;
  disconnect(): void;
  focus(options?: FocusOptions): void;
  blur(): void;
  sendKey(keysym: number, code: string | null, down?: boolean): void;
  clipboardPasteFrom(text: string): void;
}

type RfbClass = new (target: Element, channel: object, options?: RfbOptions) => Rfb;
