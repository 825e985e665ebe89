// The body in 3D: soft light, a shadow on the ground, a slow turn that stops when touched.
// Frames are drawn only while something moves, so that a resting page costs nothing.

import * as THREE from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { RoomEnvironment } from "three/addons/environments/RoomEnvironment.js";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";

const FIELD_OF_VIEW_DEG = 28;
const TURN_S = 24; // one slow turn
const JERKY_S = 0.06; // slower frames than this make no gentle turn
const STEP_RAD = Math.PI / 18; // one press of an arrow key

const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Viewer {
  constructor(canvas, { onSpin }) {
    this.canvas = canvas;
    this.onSpin = onSpin;
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true, alpha: true });
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.renderer.toneMapping = THREE.NeutralToneMapping;

    this.camera = new THREE.PerspectiveCamera(FIELD_OF_VIEW_DEG, 1, 0.05, 50);
    this.controls = new OrbitControls(this.camera, canvas);
    Object.assign(this.controls, {
      enablePan: false,
      enableDamping: !calm.matches,
      minPolarAngle: 0.35 * Math.PI,
      maxPolarAngle: 0.53 * Math.PI,
      rotateSpeed: 0.8,
    });
    canvas.style.touchAction = "pan-y"; // a finger going up or down scrolls the page
    this.controls.addEventListener("start", () => this.spin(false));
    this.controls.addEventListener("change", () => this.draw());

    this.scene = this.#room();
    this.spinning = false;
    this.visible = true;
    new ResizeObserver(() => this.#resize()).observe(canvas.parentElement);
    new IntersectionObserver(([entry]) => {
      this.visible = entry.isIntersecting;
      this.draw();
    }).observe(canvas);
    canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  #room() {
    const scene = new THREE.Scene();
    const pmrem = new THREE.PMREMGenerator(this.renderer);
    scene.environment = pmrem.fromScene(new RoomEnvironment(), 0.04).texture;
    scene.environmentIntensity = 0.5;
    pmrem.dispose();
    const key = new THREE.DirectionalLight(0xfffaf4, 1.1);
    key.position.set(1.2, 3, 2.4);
    const fill = new THREE.DirectionalLight(0xf8f8ff, 1.1); // so that the back is no dark side
    fill.position.set(-1.6, 2.4, -2.6);
    scene.add(key, fill, this.#shadow());
    return scene;
  }

  /** The soft shadow under the feet, painted once; no picture file is needed for it. */
  #shadow() {
    const paper = document.createElement("canvas");
    paper.width = paper.height = 256;
    const brush = paper.getContext("2d");
    const fade = brush.createRadialGradient(128, 128, 8, 128, 128, 128);
    fade.addColorStop(0, "rgba(30,22,10,0.42)");
    fade.addColorStop(0.35, "rgba(30,22,10,0.2)");
    fade.addColorStop(0.7, "rgba(30,22,10,0.05)");
    fade.addColorStop(1, "rgba(30,22,10,0)");
    brush.fillStyle = fade;
    brush.fillRect(0, 0, 256, 256);
    this.shadow = new THREE.Mesh(
      new THREE.PlaneGeometry(1.5, 1.0).rotateX(-Math.PI / 2),
      new THREE.MeshBasicMaterial({ map: new THREE.CanvasTexture(paper), transparent: true, depthWrite: false }),
    );
    return this.shadow;
  }

  /** Load a GLB and look at it from the front; resolves when it has been drawn. */
  async show(url) {
    const { scene: body } = await new GLTFLoader().loadAsync(url);
    body.traverse((node) => {
      node.frustumCulled = false; // a skinned body leaves its rest box
    });
    if (this.body) this.scene.remove(this.body);
    this.body = body;
    this.scene.add(body);
    body.updateMatrixWorld(true);
    this.box = new THREE.Box3().setFromObject(body, true);
    const centre = this.box.getCenter(new THREE.Vector3());
    this.shadow.position.set(centre.x, 0.001, centre.z);
    this.#resize();
    this.face(0);
    this.spin(!calm.matches);
    this.renderer.render(this.scene, this.camera);
  }

  /** Stand in front of the body, turned by `degrees`: 0 its front, 90 its left side. */
  face(degrees) {
    if (!this.box) return;
    const size = this.box.getSize(new THREE.Vector3());
    const centre = this.box.getCenter(new THREE.Vector3());
    const half = Math.tan((FIELD_OF_VIEW_DEG * Math.PI) / 360);
    // Whole with room around, also when it is turned: its width is that of its widest side.
    const wide = Math.hypot(size.x, size.z);
    const distance = Math.max((size.y * 0.62) / half, (wide * 0.53) / (half * this.camera.aspect)) + size.z / 2;
    const angle = (degrees * Math.PI) / 180;
    this.controls.target.set(centre.x, centre.y - size.y * 0.035, centre.z);
    this.camera.position.set(
      centre.x + Math.sin(angle) * distance,
      centre.y + size.y * 0.06,
      centre.z + Math.cos(angle) * distance,
    );
    this.controls.minDistance = distance * 0.3;
    this.controls.maxDistance = distance * 1.5;
    this.controls.update();
    this.draw();
  }

  spin(on) {
    this.spinning = on;
    this.frameS = 0; // a mean over the last frames
    this.onSpin(on);
    this.draw();
  }

  draw() {
    if (this.pending || !this.body) return;
    this.pending = requestAnimationFrame((time) => this.#frame(time));
  }

  #frame(time) {
    this.pending = 0;
    const seconds = Math.min((time - (this.last ?? time)) / 1000, 0.1);
    this.last = time;
    if (this.spinning) {
      this.#orbit((seconds * 2 * Math.PI) / TURN_S);
      this.frameS = 0.9 * this.frameS + 0.1 * seconds;
      if (this.frameS > JERKY_S) this.spin(false);
    }
    this.controls.update();
    this.renderer.render(this.scene, this.camera);
    if (this.spinning && this.visible) this.draw();
    else this.last = undefined;
  }

  #orbit(radians) {
    const from = this.camera.position.clone().sub(this.controls.target);
    from.applyAxisAngle(this.camera.up, radians);
    this.camera.position.copy(this.controls.target).add(from);
  }

  #key(event) {
    const turns = { ArrowLeft: -STEP_RAD, ArrowRight: STEP_RAD };
    const zooms = { "+": 0.9, "=": 0.9, "-": 1.1 };
    if (event.key in turns) this.#orbit(turns[event.key]);
    else if (event.key in zooms) {
      const from = this.camera.position.clone().sub(this.controls.target);
      const { minDistance, maxDistance } = this.controls;
      from.setLength(Math.min(maxDistance, Math.max(minDistance, from.length() * zooms[event.key])));
      this.camera.position.copy(this.controls.target).add(from);
    } else return;
    event.preventDefault();
    this.spin(false);
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    if (!width || !height) return;
    this.renderer.setSize(width, height, false);
    const changed = Math.abs(this.camera.aspect - width / height) > 0.01;
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    if (changed && this.box) this.face(this.#bearing());
    this.draw();
  }

  #bearing() {
    const from = this.camera.position.clone().sub(this.controls.target);
    return (Math.atan2(from.x, from.z) * 180) / Math.PI;
  }
}
